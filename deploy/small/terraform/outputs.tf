# What you need next.

output "address" {
  description = "The names of the UIs lead here."
  value       = aws_eip.machine.public_ip
}

output "machine" {
  description = "aws ssm start-session --target …"
  value       = aws_instance.machine.id
}

output "settings" {
  description = "Name of the parameter that holds settings.env."
  value       = aws_ssm_parameter.settings.name
}

output "bucket" {
  description = "Lake, dropped files, backups."
  value       = module.bucket.name
}

output "cloud_init" {
  description = "What a new machine begins with; without secrets."
  value       = local.cloud_init
}
