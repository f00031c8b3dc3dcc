"""Short names for runs that got none: two words are easier to say than an id."""

import secrets

_COLOURS = ("amber", "azure", "coral", "golden", "green", "indigo", "ivory", "jade", "lilac", "ruby", "silver", "teal")
_ANIMALS = ("badger", "crane", "falcon", "fox", "heron", "ibex", "lynx", "otter", "owl", "raven", "seal", "wolf")


def random_name() -> str:
    """For example `azure-heron-41`."""
    return f"{secrets.choice(_COLOURS)}-{secrets.choice(_ANIMALS)}-{secrets.randbelow(90) + 10}"
