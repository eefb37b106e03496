"""What is unusual: the detectors, the terms of the score, and incidents."""
