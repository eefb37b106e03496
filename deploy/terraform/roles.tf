data "aws_iam_policy_document" "reader_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "AWS"
      identifiers = var.reader_principal_arns
    }
    dynamic "condition" {
      for_each = var.external_id == "" ? [] : [var.external_id]
      content {
        test     = "StringEquals"
        variable = "sts:ExternalId"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "reader" {
  provider             = aws.archive
  name                 = "raretrail-reader"
  description          = "Reads the organisation's CloudTrail"
  assume_role_policy   = data.aws_iam_policy_document.reader_trust.json
  max_session_duration = 14400
}

resource "aws_iam_role_policy" "reader" {
  provider = aws.archive
  name     = "read-trail"
  role     = aws_iam_role.reader.id
  policy = templatefile("${path.module}/../policies/trail-reader.json", {
    trail_bucket_arn = aws_s3_bucket.trail.arn
    trail_key_arn    = aws_kms_key.trail.arn
    organization_id  = local.organization_id
    region           = var.region
  })
}
