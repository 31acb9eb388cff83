"""The routes that people come by: pages, files, what a page can do, health."""
