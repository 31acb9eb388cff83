"""`python -m mixer`: this service alone, as its container runs it."""

import sys

from contracts.service import main
from mixer.app import run

sys.exit(main("mixer", run))
