variable "stack" {
  description = "What all tasks of the stack have in common."
  type = object({
    name            = string
    account         = string
    region          = string
    arn             = string # how ARNs begin: arn:aws
    architecture    = string
    log_group       = string
    log_group_arn   = string
    repository_arn  = string
    secrets_key_arn = string
    boundary_arn    = string
  })
}

variable "kind" {
  description = "What the task is: name of its container and of its log streams, end of its family's name."
  type        = string
}

variable "image" {
  description = "URI of the image."
  type        = string
}

variable "command" {
  description = "Command and its arguments."
  type        = list(string)
}

variable "size" {
  description = "Processor (1024 is one) and memory (MiB)."
  type        = object({ cpu = number, memory = number })
}

variable "storage_gib" {
  description = "Disk; null: Fargate's 20 GiB."
  type        = number
  default     = null
}

variable "environment" {
  description = "Environment. Nothing secret: whoever may describe the task definition sees it."
  type        = map(string)
}

variable "secrets" {
  description = "Variable -> ARN of the secret that ECS puts there when the task starts, with :key:: for one key of it."
  type        = map(string)
}

variable "has_permissions" {
  description = "False: the task may do nothing in AWS."
  type        = bool
  default     = true
}

variable "statements" {
  description = "What the task may do in AWS: statements of an IAM policy, as JSON."
  type        = string
  default     = "[]"
}

variable "port" {
  description = "Port that it listens on; null: none."
  type        = number
  default     = null
}

variable "health_check" {
  description = "Command that fails when the container is not well; null: it ends by itself."
  type        = list(string)
  default     = null
}

variable "keep_revisions" {
  description = "Keep the task definition's old revisions, which a rollback needs."
  type        = bool
}
