"""`python -m gateway`: this service alone, as its container runs it."""

import sys

from contracts.service import main
from gateway.app import run

sys.exit(main("gateway", run))
