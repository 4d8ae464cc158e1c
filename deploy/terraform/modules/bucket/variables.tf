variable "name" {
  description = "Name of the bucket."
  type        = string
}

variable "kms_key_arn" {
  description = "Key that objects are encrypted with; null: S3's own (SSE-S3)."
  type        = string
  default     = null
}

variable "statements" {
  description = "More statements for the bucket's policy, as JSON."
  type        = string
  default     = "[]"
}

variable "noncurrent_days" {
  description = "Days for which replaced and deleted objects are kept as old versions."
  type        = number
}

variable "expire_days" {
  description = "Prefix -> days after which its objects expire."
  type        = map(number)
  default     = {}
}

variable "lock_days" {
  description = "Days of default retention under object lock; 0: object lock without one; null: no object lock."
  type        = number
  default     = null
}

variable "log_bucket" {
  description = "Bucket for the access log; null: none."
  type        = string
  default     = null
}

variable "force_destroy" {
  description = "Destroy the bucket with what is in it."
  type        = bool
}
