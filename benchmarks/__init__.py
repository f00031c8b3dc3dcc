"""What is claimed about speed and quality, measured beside the peer or the reference: see README.md."""
