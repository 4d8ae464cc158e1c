# The part of the network and of its names that the role reaches which applies an approved plan (ci_deploy.tf).

locals {
  # What has no name before it is made is made with our tag, and found by it from then on. Each action makes one kind; what
  # else it touches (the network that a subnet is to lie in) must have the tag already.
  ec2_arn = "${local.arn}:ec2:${var.region}:${local.account}"
  ec2_makes = {
    AllocateAddress                   = "elastic-ip"
    AuthorizeSecurityGroupEgress      = "security-group-rule"
    AuthorizeSecurityGroupIngress     = "security-group-rule"
    CreateFlowLogs                    = "vpc-flow-log"
    CreateInternetGateway             = "internet-gateway"
    CreateNatGateway                  = "natgateway"
    CreateRouteTable                  = "route-table"
    CreateSecurityGroup               = "security-group"
    CreateSubnet                      = "subnet"
    CreateTransitGatewayVpcAttachment = "transit-gateway-attachment"
    CreateVpc                         = "vpc"
    CreateVpcEndpoint                 = "vpc-endpoint"
  }

  network_statements = jsonencode(concat(
    [for action, made in local.ec2_makes : {
      Sid       = action
      Effect    = "Allow"
      Action    = "ec2:${action}"
      Resource  = "${local.ec2_arn}:${made}/*"
      Condition = { StringEquals = { "aws:RequestTag/Stack" = var.name } }
    }],
    [
      {
        Sid       = "TagWhatIsMade"
        Effect    = "Allow"
        Action    = "ec2:CreateTags"
        Resource  = [for made in distinct(values(local.ec2_makes)) : "${local.ec2_arn}:${made}/*"]
        Condition = { StringEquals = { "ec2:CreateAction" = keys(local.ec2_makes), "aws:RequestTag/Stack" = var.name } }
      },
      {
        Sid       = "ChangeTheNetwork"
        Effect    = "Allow"
        Action    = "ec2:*"              # any: of what has our tag
        Resource  = "${local.ec2_arn}:*" # any: what has our tag
        Condition = { StringEquals = { "aws:ResourceTag/Stack" = var.name } }
      },
    ],
    [for gateway in var.totesys_route.id[*] : {
      Sid      = "JoinTransitGateway"
      Effect   = "Allow"
      Action   = "ec2:CreateTransitGatewayVpcAttachment"
      Resource = "${local.ec2_arn}:transit-gateway/${gateway}"
    } if local.by_transit_gateway],
    [for zone in var.route53_zone_id[*] : {
      Sid      = "NameOwnHosts"
      Effect   = "Allow"
      Action   = "route53:ChangeResourceRecordSets"
      Resource = "${local.arn}:route53:::hostedzone/${zone}"
      Condition = {
        Null                        = { "route53:ChangeResourceRecordSetsNormalizedRecordNames" = "false" } # of no names, all are ours
        "ForAllValues:StringEquals" = { "route53:ChangeResourceRecordSetsNormalizedRecordNames" = [local.ui_host, local.viewer_host, local.dashboard_host, local.api_host] }
      }
    }],
    [for zone in var.route53_zone_id[*] : {
      Sid      = "ReadZone"
      Effect   = "Allow"
      Action   = ["route53:GetHostedZone", "route53:ListResourceRecordSets", "route53:GetChange"]
      Resource = ["${local.arn}:route53:::hostedzone/${zone}", "${local.arn}:route53:::change/*"]
    }],
  ))
}
