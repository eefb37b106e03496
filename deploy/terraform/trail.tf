data "aws_organizations_organization" "this" {
  provider = aws.management
}

data "aws_caller_identity" "management" {
  provider = aws.management
}

data "aws_partition" "this" {
  provider = aws.management
}

locals {
  organization_id = data.aws_organizations_organization.this.id
  management_id   = data.aws_caller_identity.management.account_id
  partition       = data.aws_partition.this.partition
  # Written out, since bucket and key must name the trail before it is there.
  trail_arn = "arn:${local.partition}:cloudtrail:${var.region}:${local.management_id}:trail/${var.trail_name}"
}

resource "aws_cloudtrail" "organization" {
  provider                      = aws.management
  name                          = var.trail_name
  s3_bucket_name                = aws_s3_bucket.trail.id
  kms_key_id                    = aws_kms_key.trail.arn
  is_organization_trail         = true
  is_multi_region_trail         = true
  include_global_service_events = true
  enable_log_file_validation    = true

  advanced_event_selector {
    name = "Management events"
    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
  }

  dynamic "advanced_event_selector" {
    for_each = length(var.data_event_bucket_arns) > 0 ? [1] : []
    content {
      name = "Objects of chosen buckets"
      field_selector {
        field  = "eventCategory"
        equals = ["Data"]
      }
      field_selector {
        field  = "resources.type"
        equals = ["AWS::S3::Object"]
      }
      field_selector {
        field       = "resources.ARN"
        starts_with = [for arn in var.data_event_bucket_arns : "${arn}/"]
      }
    }
  }

  depends_on = [aws_s3_bucket_policy.trail, aws_kms_key_policy.trail]
}
