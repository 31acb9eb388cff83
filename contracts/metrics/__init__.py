"""Figures for Prometheus: what there is (`declared`), what one process reads (`figures`), where it is served."""
