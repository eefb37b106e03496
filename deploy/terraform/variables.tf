variable "region" {
  description = "Home region of the trail and region of the bucket"
  type        = string
}

variable "archive_admin_role_arn" {
  description = "Role in the log archive account that Terraform takes there"
  type        = string
}

variable "bucket_name" {
  description = "Bucket of the trail; made here"
  type        = string
}

variable "trail_name" {
  description = "Name of the organisation's trail"
  type        = string
  default     = "organization"
}

variable "reader_principal_arns" {
  description = "Roles or users that raretrail runs as and that may take the reading role"
  type        = list(string)
}

variable "external_id" {
  description = "What they must say when taking it; empty for nothing"
  type        = string
  default     = ""
}

variable "data_event_bucket_arns" {
  description = "Buckets whose object reads and writes are logged; each event costs"
  type        = list(string)
  default     = []
}

variable "keep_days" {
  description = "Days until log files expire"
  type        = number
  default     = 2557
}

variable "warehouse_bucket_arn" {
  description = "Bucket of raretrail's warehouse; empty where it lies elsewhere"
  type        = string
  default     = ""
}

variable "warehouse_prefix" {
  description = "Folder of the warehouse in its bucket"
  type        = string
  default     = "raretrail"
}
