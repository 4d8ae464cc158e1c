output "arn" {
  description = "ARN of the task definition's revision."
  value       = aws_ecs_task_definition.task.arn
}

output "family" {
  description = "Family of the task definition."
  value       = aws_ecs_task_definition.task.family
}

output "container" {
  description = "Name of the container, and of the port."
  value       = var.kind
}

output "definition" {
  description = "The container, as ECS is told of it."
  value       = jsondecode(aws_ecs_task_definition.task.container_definitions)[0]
}
