"""What README and lessons claim about speed, measured again by ``make bench``."""
