"""`python -m capture`: this service alone, as its container runs it."""

import sys

from capture.app import run
from contracts.service import main

sys.exit(main("capture", run))
