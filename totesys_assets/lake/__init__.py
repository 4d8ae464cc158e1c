"""The lake: Delta tables in a folder or a bucket, through delta-rs. What their rows mean is not said here."""
