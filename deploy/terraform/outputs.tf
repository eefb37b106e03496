output "trail" {
  description = "What to give --trail"
  value       = "s3a://${aws_s3_bucket.trail.id}/AWSLogs/${local.organization_id}"
}

output "reader_role_arn" {
  description = "The role to take for reading it"
  value       = aws_iam_role.reader.arn
}

output "writer_policy" {
  description = "Policy for writing the warehouse, to be attached to whatever raretrail runs as"
  value       = one(data.aws_iam_policy_document.writer[*].json)
}
