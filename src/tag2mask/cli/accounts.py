"""Whether somebody is logged in where runs can be sent."""

import os
from pathlib import Path


def logged_in_to_wandb() -> bool:
    """Whether W&B would find a key here; it is not asked, and nothing is read of the key."""
    if "WANDB_API_KEY" in os.environ:
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")
