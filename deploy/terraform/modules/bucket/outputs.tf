output "name" {
  description = "Name of the bucket, known once it can be written to."
  value       = aws_s3_bucket.bucket.bucket
  depends_on  = [aws_s3_bucket_policy.bucket, aws_s3_bucket_server_side_encryption_configuration.bucket]
}

output "arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.bucket.arn
}

output "policy" {
  description = "The bucket's policy."
  value       = jsondecode(aws_s3_bucket_policy.bucket.policy)
}
