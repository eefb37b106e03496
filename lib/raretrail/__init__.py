"""raretrail: unusual AWS commands, found in CloudTrail with Spark, kept in Delta tables."""

__version__ = "0.1.0"
