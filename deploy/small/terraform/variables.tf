# What you decide.

variable "name" {
  description = "Name of everything here, unlike that of any other stack in the account."
  type        = string
  default     = "totesys-small"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name))
    error_message = "name: 3 to 20 lower-case letters, digits and hyphens."
  }
}

variable "region" {
  description = "Region, near ToteSys."
  type        = string
}

variable "ui_host" {
  description = "Host name of the UI; view. and sales. of it lead to the viewers' pages."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,}$", var.ui_host))
    error_message = "ui_host: a host name in lower case, such as totesys.example.com."
  }
}

variable "route53_zone_id" {
  description = "Zone in which the three names are made; null: point them at the output address yourself."
  type        = string
  default     = null
}

variable "allowed_cidrs" {
  description = "Networks that may reach the UIs. Port 80 is open to all: who signs certificates looks there."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "alarm_emails" {
  description = "Who is told, of failures and of costs. Each confirms a mail from AWS first."
  type        = list(string)

  validation {
    condition     = length(var.alarm_emails) > 0
    error_message = "alarm_emails: nobody would be told that the machine is down."
  }
}

variable "repository" {
  description = "Address of this project's Git repository, which the machine can clone without a login."
  type        = string

  validation {
    condition     = can(regex("^https://[A-Za-z0-9./_-]+$", var.repository))
    error_message = "repository: an https:// address without a user."
  }
}

variable "release" {
  description = "Tag or commit of it that a new machine begins with. Later ones: manage.sh update."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*$", var.release))
    error_message = "release: a tag or a commit."
  }
}

variable "instance_type" {
  description = "An ARM64 machine. The containers may take 8 GB together; 4 GB of swap are made beside."
  type        = string
  default     = "t4g.large"
}

variable "volume_gib" {
  description = "Size of the disk: the warehouse, Dagster's records, images, and dumps on their way."
  type        = number
  default     = 40
}

variable "old_versions_days" {
  description = "Days for which what is replaced or deleted in the bucket can still be had."
  type        = number
  default     = 30
}

variable "monthly_budget_usd" {
  description = "AWS reports when a month costs more, once the tag Stack is activated for cost allocation."
  type        = number
  default     = 80
}

variable "deletion_protection" {
  description = "Refuse to end the machine and to destroy a bucket that is not empty."
  type        = bool
  default     = true
}
