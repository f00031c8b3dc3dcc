"""What can be wrong at a start, as one sentence for the terminal."""


class LaunchError(Exception):
    """Something that the user can put right; the message says how."""
