-- Written by tools/unity_catalog.py from the tables and views as declared; change it there.
-- The first line names the schema that --warehouse names.
USE SCHEMA security.raretrail;

-- Plain functions, without subqueries: the job merges into these tables.
CREATE OR REPLACE FUNCTION raretrail_sees_all() RETURNS BOOLEAN
  COMMENT 'Whether nothing is kept from the user: the job, and those who investigate'
  RETURN is_account_group_member('raretrail_job') OR is_account_group_member('raretrail_analysts');

CREATE OR REPLACE FUNCTION raretrail_masked(value STRING) RETURNS STRING
  COMMENT 'A name, an address, or words that may have either'
  RETURN CASE WHEN value IS NULL OR raretrail_sees_all() THEN value ELSE '[masked]' END;

CREATE OR REPLACE FUNCTION raretrail_masked_list(value ARRAY<STRING>) RETURNS ARRAY<STRING>
  COMMENT 'A list of such'
  RETURN CASE WHEN value IS NULL OR raretrail_sees_all() THEN value ELSE array('[masked]') END;

-- The audience of the shared views has no grant on the tables; the views show them incidents of all accounts.
CREATE OR REPLACE FUNCTION raretrail_of_account(account STRING) RETURNS BOOLEAN
  COMMENT 'Whether the user may see rows of the account: members of the group raretrail_<account>'
  RETURN raretrail_sees_all() OR is_account_group_member('raretrail_audience')
    OR is_account_group_member(concat('raretrail_', account));

CREATE OR REPLACE FUNCTION raretrail_of_accounts(accounts ARRAY<STRING>) RETURNS BOOLEAN
  COMMENT 'The same, of any of several'
  RETURN raretrail_sees_all() OR is_account_group_member('raretrail_audience')
    OR exists(accounts, account -> is_account_group_member(concat('raretrail_', account)));

ALTER TABLE anomalies SET ROW FILTER raretrail_of_account ON (recipient_account_id);
ALTER TABLE anomalies ALTER COLUMN principal SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN actor SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN source_ip_address SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN user_agent SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN agent_family SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN access_key_id SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN address_key SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN judged_as SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN user_identity_arn SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN session_issuer_arn SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN request_parameters SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN session_chain SET MASK raretrail_masked_list;
ALTER TABLE anomalies ALTER COLUMN origin_principal SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN origin_access_key_id SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN origin_source_ip_address SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN key_created_by SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN identity_created_by SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN policies_seen SET MASK raretrail_masked_list;
ALTER TABLE anomalies ALTER COLUMN own_resource SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN own_instance_profile SET MASK raretrail_masked;
ALTER TABLE anomalies ALTER COLUMN summary SET MASK raretrail_masked;

ALTER TABLE incidents SET ROW FILTER raretrail_of_accounts ON (recipient_account_ids);
ALTER TABLE incidents ALTER COLUMN actor SET MASK raretrail_masked;
ALTER TABLE incidents ALTER COLUMN principal SET MASK raretrail_masked;
ALTER TABLE incidents ALTER COLUMN principals SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN source_ip_addresses SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN summary SET MASK raretrail_masked;
ALTER TABLE incidents ALTER COLUMN access_key_ids SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN origin_principals SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN became SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN policies_seen SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN own_resources SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN touched_resources SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN made SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN account_owners SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN response_steps SET MASK raretrail_masked_list;
ALTER TABLE incidents ALTER COLUMN assignee SET MASK raretrail_masked;
ALTER TABLE incidents ALTER COLUMN verdict_by SET MASK raretrail_masked;

ALTER TABLE coverage_hourly SET ROW FILTER raretrail_of_account ON (recipient_account_id);

ALTER TABLE data_quality ALTER COLUMN scope_value SET MASK raretrail_masked;
ALTER TABLE data_quality ALTER COLUMN detail SET MASK raretrail_masked;

ALTER TABLE runs ALTER COLUMN message SET MASK raretrail_masked;
ALTER TABLE runs ALTER COLUMN held_scopes SET MASK raretrail_masked_list;
