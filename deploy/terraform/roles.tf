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

# What reading the trail needs, and no more.
data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "ListTrail"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.trail.arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["AWSLogs", "AWSLogs/", "AWSLogs/${local.organization_id}", "AWSLogs/${local.organization_id}/*"]
    }
  }

  statement {
    sid       = "FindRegion"
    actions   = ["s3:GetBucketLocation"]
    resources = [aws_s3_bucket.trail.arn]
  }

  statement {
    sid       = "ReadTrail"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.trail.arn}/AWSLogs/${local.organization_id}/*"]
  }

  statement {
    sid       = "DecryptTrail"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.trail.arn]
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["s3.${var.region}.amazonaws.com"]
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
  policy   = data.aws_iam_policy_document.reader.json
}

# What writing the warehouse needs. Printed as an output: whoever owns the role that raretrail runs as
# attaches it there.
data "aws_iam_policy_document" "writer" {
  count = var.warehouse_bucket_arn == "" ? 0 : 1

  statement {
    sid       = "ListWarehouse"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [var.warehouse_bucket_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = [var.warehouse_prefix, "${var.warehouse_prefix}/*"]
    }
  }

  statement {
    sid       = "FindRegion"
    actions   = ["s3:GetBucketLocation"]
    resources = [var.warehouse_bucket_arn]
  }

  statement {
    sid = "WriteWarehouse"
    actions = [
      "s3:GetObject",
      "s3:PutObject",
      "s3:DeleteObject",
      "s3:AbortMultipartUpload",
      "s3:ListMultipartUploadParts",
    ]
    resources = ["${var.warehouse_bucket_arn}/${var.warehouse_prefix}/*"]
  }
}
