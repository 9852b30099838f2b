"""``python -m tag2mask``: the same as the ``tag2mask`` command."""

import sys

from tag2mask.cli.main import main

sys.exit(main())
