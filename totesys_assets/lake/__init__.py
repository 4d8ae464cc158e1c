"""The lake: Delta tables in a folder or a bucket, through delta-rs. It does not know what their rows mean."""
