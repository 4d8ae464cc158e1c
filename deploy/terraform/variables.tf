# What a user decides. Those without a default must be set: terraform.tfvars.example.

variable "name" {
  description = "Name of the stack: begins the names of all that it makes."
  type        = string
  default     = "totesys"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,18}[a-z0-9]$", var.name)) && !can(regex("--|aws|amazon|cognito|^internal-|^sg-", var.name))
    error_message = "name takes 3 to 20 lower-case letters, digits and single hyphens, and none of aws, amazon, cognito (Cognito's rule); it does not begin with internal- or sg-."
  }
}

variable "region" {
  description = "AWS region, for example eu-west-2."
  type        = string
}

variable "account_id" {
  description = "The AWS account that this may be applied to. Null: whichever the credentials lead to."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags for everything, besides Project, Stack and ManagedBy."
  type        = map(string)
  default     = {}
}

variable "deletion_protection" {
  description = "True: databases, buckets with content, user pools and the load balancer cannot be destroyed, and secrets and keys only after 30 days."
  type        = bool
  default     = true
}

# Image and tasks ------------------------------------------------------------------------------------------------------

variable "image_tag" {
  description = "Tag of the image in ECR that the next release brings into use. Null, before the first image was pushed: no task is started."
  type        = string
  default     = null

  validation {
    condition     = var.image_tag == null || (can(regex("^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$", var.image_tag)) && var.image_tag != "latest")
    error_message = "image_tag names one image for ever, the commit's hash for example: not latest, which ECR would refuse to move."
  }
}

variable "image_digest" {
  description = "Digest of that image, which tasks then name instead of the tag: they run what was verified. Null: they name the tag, which never moves either."
  type        = string
  default     = null

  validation {
    condition     = var.image_digest == null || (var.image_tag != null && can(regex("^sha256:[0-9a-f]{64}$", var.image_digest)))
    error_message = "image_digest is sha256: and 64 hexadecimal digits, and goes with image_tag."
  }
}

variable "architecture" {
  description = "Processor that the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture is X86_64 or ARM64."
  }
}

variable "sizes" {
  description = "Processor (1024 is one) and memory (MiB) of each kind of task, as Fargate sells them."
  type        = map(object({ cpu = number, memory = number }))
  default     = {}

  validation {
    condition     = alltrue([for kind in keys(var.sizes) : contains(["code", "daemon", "webserver", "viewer", "dashboard", "api", "run", "provision"], kind)])
    error_message = "sizes has keys of code, daemon, webserver, viewer, dashboard, api, run and provision only."
  }

  validation {
    condition = alltrue([for size in var.sizes : contains(
      lookup({
        256  = [512, 1024, 2048], 512 = range(1024, 4097, 1024), 1024 = range(2048, 8193, 1024),
        2048 = range(4096, 16385, 1024), 4096 = range(8192, 30721, 1024), 8192 = range(16384, 61441, 4096)
      }, size.cpu, []), size.memory
    )])
    error_message = "Fargate does not sell one of the sizes: cpu 256 takes 512 to 2048 MiB, 512 up to 4096, 1024 from 2048 to 8192, 2048 from 4096 to 16384, 4096 from 8192 to 30720, 8192 from 16384 to 61440."
  }
}

variable "run_storage_gib" {
  description = "Disk of a large run's task, where DuckDB spills what does not fit into memory: 21 to 200 GiB."
  type        = number
  default     = 50

  validation {
    condition     = var.run_storage_gib >= 21 && var.run_storage_gib <= 200
    error_message = "run_storage_gib is 21 to 200."
  }
}

variable "stale_minutes" {
  description = "Minutes without a successful look or refresh after which the platform reports itself as stale."
  type        = number
  default     = 30

  validation {
    condition     = var.stale_minutes >= 1 && floor(var.stale_minutes) == var.stale_minutes
    error_message = "stale_minutes is a whole number, 1 or more."
  }
}

variable "totesys_log" {
  description = "Whether PostgreSQL's log of ToteSys is followed, \"on\" or \"off\": docs/how-to/log.md says what ToteSys needs for it."
  type        = string
  default     = "off"

  validation {
    condition     = contains(["on", "off"], var.totesys_log)
    error_message = "totesys_log is on or off."
  }
}

variable "totesys_schema" {
  description = "Schema of the tables of ToteSys in its database."
  type        = string
  default     = "public"

  validation {
    condition     = can(regex("^[^%]*[^%[:space:]][^%]*$", var.totesys_schema)) && !can(regex("^(pg_|information_schema$)", var.totesys_schema))
    error_message = "totesys_schema is a name of a schema of the user: not blank, without a percent sign, not pg_… or information_schema."
  }
}

variable "first_day" {
  description = "The first day that has a partition, for example 2022-11-03: rows of ToteSys that were created earlier are dead letters. Null: that of the real ToteSys."
  type        = string
  default     = null

  validation {
    condition     = var.first_day == null || (can(regex("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", var.first_day)) && can(formatdate("YYYY", "${coalesce(var.first_day, "-")}T00:00:00Z")))
    error_message = "first_day is a date such as 2022-11-03."
  }
}

variable "new_columns" {
  description = "What a new nullable column of ToteSys does: \"ignore\" leaves it out with a warning, \"stop\" stops its table."
  type        = string
  default     = "ignore"

  validation {
    condition     = contains(["ignore", "stop"], var.new_columns)
    error_message = "new_columns is ignore or stop."
  }
}

variable "range_rows" {
  description = "Rows beyond which a first load or a backfill becomes several runs, each a task for a range of days; 0 keeps it one run."
  type        = number
  default     = 100000000

  validation {
    condition     = var.range_rows >= 0 && var.range_rows < 1000000000000 && floor(var.range_rows) == var.range_rows
    error_message = "range_rows is a whole number of at most 12 digits, 0 or more."
  }
}

variable "spark" {
  description = "Addresses and port of a Spark Connect server that builds the star and the marts; its URL goes into the secret NAME/spark-remote. Null: DuckDB builds them."
  type        = object({ cidrs = list(string), port = number })
  default     = null

  validation {
    condition     = var.spark == null ? true : length(var.spark.cidrs) > 0 && alltrue([for cidr in var.spark.cidrs : can(cidrnetmask(cidr)) && cidr != "0.0.0.0/0"]) && var.spark.port >= 1 && var.spark.port <= 65535 && floor(var.spark.port) == var.spark.port
    error_message = "spark has cidrs, the addresses of the server, for example 10.40.1.0/24 and not 0.0.0.0/0, and port, a whole number from 1 to 65535."
  }
}

# Network --------------------------------------------------------------------------------------------------------------

variable "vpc_cidr" {
  description = "Addresses of the VPC, a /16 to /24; must not overlap with ToteSys's network if the two are connected."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 24, false)
    error_message = "vpc_cidr is an IPv4 network of /16 to /24, for example 10.40.0.0/16."
  }
}

variable "zones" {
  description = "Letters of two availability zones of the region that your account has: not every account has every letter."
  type        = list(string)
  default     = ["a", "b"]

  validation {
    condition     = length(distinct(var.zones)) == 2 && length(var.zones) == 2 && alltrue([for letter in var.zones : can(regex("^[a-z]$", letter))])
    error_message = "zones are two different letters, for example [\"a\", \"b\"]."
  }
}

variable "endpoint_zones" {
  description = "Zones with endpoints of AWS's services: 2, or 1 at half the price. With 1, nothing runs while that zone is down."
  type        = number
  default     = 2

  validation {
    condition     = contains([1, 2], var.endpoint_zones)
    error_message = "endpoint_zones is 1 or 2."
  }
}

variable "totesys_cidrs" {
  description = "Addresses of the ToteSys database, for the security group and the route."
  type        = list(string)

  validation {
    condition     = length(var.totesys_cidrs) > 0 && alltrue([for cidr in var.totesys_cidrs : can(cidrnetmask(cidr)) && cidr != "0.0.0.0/0"])
    error_message = "totesys_cidrs lists the addresses of the ToteSys database, for example 192.0.2.10/32, and not 0.0.0.0/0."
  }
}

variable "totesys_port" {
  description = "Port of the ToteSys database."
  type        = number
  default     = 5432

  validation {
    condition     = var.totesys_port >= 1 && var.totesys_port <= 65535 && floor(var.totesys_port) == var.totesys_port
    error_message = "totesys_port is a whole number from 1 to 65535."
  }
}

variable "totesys_route" {
  description = "The way to ToteSys: none (it is in this network, or you make the route), nat (over the Internet), transit_gateway or peering, these two with the id."
  type        = object({ by = string, id = optional(string) })
  default     = { by = "none" }

  validation {
    condition     = contains(["none", "nat", "transit_gateway", "peering"], var.totesys_route.by)
    error_message = "totesys_route.by is none, nat, transit_gateway or peering."
  }

  validation {
    condition     = contains(["transit_gateway", "peering"], var.totesys_route.by) == (var.totesys_route.id != null)
    error_message = "totesys_route.id is the id of the transit gateway (tgw-…) or of the peering connection (pcx-…), and of nothing else."
  }
}

variable "reader_cidrs" {
  description = "Networks from which BI tools may reach the warehouse, with a route that you make. None by default."
  type        = list(string)
  default     = []
}

# Access ---------------------------------------------------------------------------------------------------------------

variable "ui" {
  description = "The way in: balancer (a load balancer with TLS and logins before UI, dashboard and API), or none (nothing of these: deploy/run.sh, mails and CloudWatch remain, and the next four variables are not needed)."
  type        = string
  default     = "balancer"

  validation {
    condition     = contains(["balancer", "none"], var.ui)
    error_message = "ui is balancer or none."
  }
}

variable "viewer" {
  description = "Whether viewers have Dagster's UI, read-only, beside the dashboard."
  type        = bool
  default     = true
}

variable "ui_host" {
  description = "Host name of the UI for operators. Viewers use view.<ui_host> and, for the dashboard, sales.<ui_host>; programs api.<ui_host>."
  type        = string
  default     = null

  validation {
    condition     = var.ui == "none" || can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,}$", var.ui_host))
    error_message = "ui_host is a full host name in lower case, for example totesys.example.com."
  }
}

variable "certificate_arn" {
  description = "ARN of the ACM certificate, in this region, for ui_host, view.<ui_host> and sales.<ui_host>, with api_key_hashes also for api.<ui_host>."
  type        = string
  default     = null

  validation {
    condition     = var.ui == "none" || can(regex("^arn:[a-z-]+:acm:${var.region}:", var.certificate_arn))
    error_message = "certificate_arn is the ARN of a certificate in AWS Certificate Manager of this region: arn:aws:acm:${var.region}:…"
  }
}

variable "route53_zone_id" {
  description = "Id of the Route 53 zone in which to make the host names. Null: make them yourself (CNAME to the output load_balancer_host)."
  type        = string
  default     = null
}

variable "ui_allowed_cidrs" {
  description = "Networks from which UI, dashboard and API can be reached, before anybody logs in."
  type        = list(string)
  default     = []

  validation {
    condition     = (var.ui == "none" || length(var.ui_allowed_cidrs) > 0) && alltrue([for cidr in var.ui_allowed_cidrs : can(cidrnetmask(cidr))])
    error_message = "ui_allowed_cidrs lists IPv4 networks, for example [\"203.0.113.0/24\"]."
  }
}

variable "api_key_hashes" {
  description = "Hashes of the keys with which programs may ask the API, as totesys api --new-key prints them. None: there is no API."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for hash in var.api_key_hashes : can(regex("^[0-9a-f]{64}$", hash))])
    error_message = "api_key_hashes lists SHA-256 hashes, 64 lower-case hexadecimal digits each: the second line of totesys api --new-key, and never the key."
  }

  validation {
    condition     = var.ui != "none" || length(var.api_key_hashes) == 0
    error_message = "api_key_hashes needs ui = \"balancer\": the API is reached through it."
  }
}

variable "mfa" {
  description = "One-time codes at the login: ON (everybody, from the first login on), or OPTIONAL, with which Cognito's login offers nobody to set them up."
  type        = string
  default     = "ON"

  validation {
    condition     = contains(["OPTIONAL", "ON"], var.mfa)
    error_message = "mfa is OPTIONAL or ON."
  }
}

# Data -----------------------------------------------------------------------------------------------------------------

variable "lake_lock_days" {
  description = "Days for which no version of an object in the lake can be removed (object lock, governance mode). 0: no default retention."
  type        = number
  default     = 30

  validation {
    condition     = var.lake_lock_days >= 0 && var.lake_lock_days <= 3650
    error_message = "lake_lock_days is 0 to 3650."
  }
}

variable "lake_noncurrent_days" {
  description = "Days for which replaced and deleted objects of the lake are kept as old versions."
  type        = number
  default     = 90
}

variable "rates_url" {
  description = "Address of the European Central Bank's archive of all days, which a function fetches on working days. Empty: none does, and archives are dropped by hand."
  type        = string
  default     = "https://www.ecb.europa.eu/stats/eurofxref/eurofxref-hist.zip"
  nullable    = false

  validation {
    condition     = var.rates_url == "" || can(regex("^https://[^/@[:space:]]+(/[^[:space:]]*)?$", var.rates_url))
    error_message = "rates_url is an address that begins with https:// and has no login in it, or empty."
  }
}

variable "database_class" {
  description = "Instance class of the RDS instance."
  type        = string
  default     = "db.t4g.medium"
}

variable "database_version" {
  description = "Major version of PostgreSQL; minor ones are taken in the maintenance window."
  type        = string
  default     = "18"

  validation {
    condition     = can(regex("^1[5-9]$", var.database_version))
    error_message = "database_version is a major version from 15 on, for example 18."
  }
}

variable "database_storage_gib" {
  description = "Storage of the database at first, and what it may grow to by itself."
  type        = object({ first = number, most = number })
  default     = { first = 50, most = 500 }

  validation {
    condition     = var.database_storage_gib.first >= 20 && var.database_storage_gib.most >= 1.1 * var.database_storage_gib.first
    error_message = "database_storage_gib.first is 20 or more, and most is at least a tenth more than first: RDS asks for that."
  }

  validation {
    condition     = var.database_storage_gib.most <= 65536
    error_message = "database_storage_gib.most is at most 65536: a disk of the kind gp3 is no larger."
  }
}

variable "database_multi_az" {
  description = "True: a standby in the other zone takes over. It doubles the price of the database."
  type        = bool
  default     = true
}

variable "database_backup_days" {
  description = "Days for which the database can be restored to any moment."
  type        = number
  default     = 14

  validation {
    condition     = var.database_backup_days >= 1 && var.database_backup_days <= 35
    error_message = "database_backup_days is 1 to 35."
  }
}

variable "database_ca" {
  description = "Certificate authority of the database's certificate; must be in the image's RDS bundle."
  type        = string
  default     = "rds-ca-rsa2048-g1"
}

variable "password_version" {
  description = "Raise it to give new passwords to the database roles. 0: Terraform makes none, and you fill the five secrets yourself."
  type        = number
  default     = 1

  validation {
    condition     = var.password_version >= 0 && floor(var.password_version) == var.password_version
    error_message = "password_version is a whole number, 0 or more."
  }
}

variable "athena_scan_limit_gib" {
  description = "What one Athena query may read, in GiB."
  type        = number
  default     = 10
}

# Observability --------------------------------------------------------------------------------------------------------

variable "log_retention_days" {
  description = "Days for which logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days is one of those that CloudWatch knows: 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, …"
  }
}

variable "alarm_emails" {
  description = "Who gets alarms by e-mail. AWS asks each of them to confirm."
  type        = list(string)

  validation {
    condition     = alltrue([for address in var.alarm_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alarm_emails lists e-mail addresses."
  }
}

variable "record_days" {
  description = "Days for which Dagster's records of a run are kept after its end; 0 keeps them all."
  type        = number
  default     = 30

  validation {
    condition     = var.record_days == 0 || (var.record_days >= 7 && floor(var.record_days) == var.record_days)
    error_message = "record_days is a whole number of days, 7 or more, or 0."
  }
}

variable "late_seconds" {
  description = "Seconds from a commit in ToteSys to its refresh's end after which that refresh is late. More than 5 % late ones in a day are an alarm."
  type        = number
  default     = 30

  validation {
    condition     = var.late_seconds >= 1 && floor(var.late_seconds) == var.late_seconds
    error_message = "late_seconds is a whole number of seconds, 1 or more."
  }
}

variable "database_least_free_gib" {
  description = "Free storage of the database below which there is an alarm."
  type        = number
  default     = 10
}

variable "database_most_connections" {
  description = "Connections to the database above which there is an alarm; a db.t4g.medium takes about 400."
  type        = number
  default     = 300
}

variable "monthly_budget_usd" {
  description = "Costs per month of which alarm_emails hear at 80 % and when 100 % is foreseen. Null: no budget."
  type        = number
  default     = null

  validation {
    condition     = var.monthly_budget_usd == null ? true : var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd is more than 0, or null for no budget."
  }
}

# Continuous integration -----------------------------------------------------------------------------------------------

variable "github_repository" {
  description = "The GitHub repository whose workflows build and deploy: owner/name, or with GitHub's ids of both, owner@123/name@456, if it was made after 15 July 2026. Null: no roles for it."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || can(regex("^([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+|[A-Za-z0-9_.-]+@[0-9]+/[A-Za-z0-9_.-]+@[0-9]+)$", var.github_repository))
    error_message = "github_repository is owner/name, or owner@123/name@456 with the ids of both."
  }
}

variable "github_oidc_provider_arn" {
  description = "ARN of the account's identity provider for GitHub, of which there can be only one. Null: it is made here."
  type        = string
  default     = null
}

variable "state_bucket" {
  description = "Bucket of the Terraform state, which the roles for GitHub need; as in backend.hcl."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || var.state_bucket != null
    error_message = "state_bucket must be set with github_repository: the plan of a workflow reads the state."
  }
}

variable "state_key" {
  description = "Name of the Terraform state in its bucket, as in backend.hcl; the workflows' roles reach no other."
  type        = string
  default     = "totesys/terraform.tfstate"
}
