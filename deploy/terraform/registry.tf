# Where the image is: one repository, tags that never move, scanned when pushed; and who hears of what is found.
#
# The registry looks at an image once, when it is pushed. So deploy.yml builds anew each week. Where the account has enhanced
# scanning (Amazon Inspector, a setting of the whole account, by the image), what is found later is told as well.

resource "aws_ecr_repository" "image" {
  name                 = var.name
  image_tag_mutability = "IMMUTABLE"
  force_delete         = !var.deletion_protection

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.key["data"].arn
  }
}

resource "aws_ecr_lifecycle_policy" "image" {
  repository = aws_ecr_repository.image.name
  policy = jsonencode({
    rules = [
      # Signatures and lists of contents have no tag: they go with the image that they are of.
      {
        rulePriority = 1
        description  = "Keep 30 images to go back to"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 30 } # any: no right, but whatever tag
        action       = { type = "expire" }
      },
    ]
  })
}

locals {
  findings = {
    scan = {
      description = "A new image has weaknesses"
      pattern = {
        source      = ["aws.ecr"]
        detail-type = ["ECR Image Scan"]
        detail = {
          repository-name = [aws_ecr_repository.image.name]
          finding-severity-counts = {
            "$or" = [for severity in ["CRITICAL", "HIGH"] : { (severity) = [{ numeric = [">", 0] }] }]
          }
        }
      }
      # Texts and numbers only: within quotes EventBridge takes neither lists nor objects. One that is not there is empty.
      paths = { tag = "$.detail.image-tags[0]", critical = "$.detail.finding-severity-counts.CRITICAL", high = "$.detail.finding-severity-counts.HIGH" }
      text  = "The registry found weaknesses in the image <tag>; critical: <critical>, high: <high>. docs/deploy.md, Weaknesses of images, says what to do."
    }
    inspector = {
      description = "A weakness became known"
      pattern = {
        source      = ["aws.inspector2"]
        detail-type = ["Inspector2 Finding"]
        resources   = [{ prefix = "${local.arn}:ecr:${var.region}:${local.account}:repository/${var.name}/" }]
        detail      = { severity = ["CRITICAL", "HIGH"], status = ["ACTIVE"] }
      }
      paths = { title = "$.detail.title", severity = "$.detail.severity" }
      text  = "A weakness of an image became known: <title> (<severity>). docs/deploy.md, Weaknesses of images, says what to do."
    }
  }
}

resource "aws_cloudwatch_event_rule" "finding" {
  for_each = local.findings

  name          = "${var.name}-finding-${each.key}"
  description   = each.value.description
  event_pattern = jsonencode(each.value.pattern)
}

resource "aws_cloudwatch_event_target" "finding" {
  for_each = local.findings

  rule      = aws_cloudwatch_event_rule.finding[each.key].name
  target_id = "alerts"
  arn       = aws_sns_topic.alerts.arn

  input_transformer {
    input_paths    = each.value.paths
    input_template = "\"${each.value.text}\"" # jsonencode would hide the angle brackets
  }
}
