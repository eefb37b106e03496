"""`python -m raretrail`."""

from raretrail.cli import main

raise SystemExit(main())
