"""What runs on AWS, against stand-ins of it."""
