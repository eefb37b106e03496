output "trail" {
  description = "What to give --trail"
  value       = "s3a://${aws_s3_bucket.trail.id}/AWSLogs/${local.organization_id}"
}

output "reader_role_arn" {
  description = "The role to take for reading it"
  value       = aws_iam_role.reader.arn
}

# Whoever owns the role that raretrail runs as attaches it there.
output "writer_policy" {
  description = "Policy for writing the warehouse and taking the reading role, of whatever raretrail runs as"
  value = var.warehouse_bucket_arn == "" ? null : templatefile(
    "${path.module}/../policies/warehouse-writer.json",
    {
      warehouse_bucket_arn = var.warehouse_bucket_arn
      warehouse_prefix     = var.warehouse_prefix
      reader_role_arn      = aws_iam_role.reader.arn
    }
  )
}
