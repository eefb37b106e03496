-- Who may do what, by account-level groups; make these first. protect.sql and views.sql go before.
-- The job's service principal is in raretrail_job and owns the schema's tables.
USE SCHEMA security.raretrail;

-- The job: reads the trail (by its volume or external location), writes the warehouse, makes tables.
GRANT USE CATALOG ON CATALOG security TO `raretrail_job`;
GRANT USE SCHEMA, SELECT, MODIFY, CREATE TABLE, EXECUTE ON SCHEMA security.raretrail TO `raretrail_job`;

-- Those who investigate: see everything, say what it is, change nothing else.
GRANT USE CATALOG ON CATALOG security TO `raretrail_analysts`;
GRANT USE SCHEMA, SELECT, EXECUTE ON SCHEMA security.raretrail TO `raretrail_analysts`;
GRANT MODIFY ON TABLE dispositions TO `raretrail_analysts`;
GRANT MODIFY ON TABLE change_windows TO `raretrail_analysts`;

-- Those who look after an account, in raretrail_<account> besides: its rows, names masked.
GRANT USE CATALOG ON CATALOG security TO `raretrail_readers`;
GRANT USE SCHEMA, EXECUTE ON SCHEMA security.raretrail TO `raretrail_readers`;
GRANT SELECT ON TABLE anomalies TO `raretrail_readers`;
GRANT SELECT ON TABLE incidents TO `raretrail_readers`;
GRANT SELECT ON TABLE coverage_hourly TO `raretrail_readers`;
GRANT SELECT ON TABLE data_quality TO `raretrail_readers`;
GRANT SELECT ON TABLE runs TO `raretrail_readers`;

-- Everybody else who is to see how many and of what kind: two views, and no table.
GRANT USE CATALOG ON CATALOG security TO `raretrail_audience`;
GRANT USE SCHEMA, EXECUTE ON SCHEMA security.raretrail TO `raretrail_audience`;
GRANT SELECT ON VIEW shared_incidents TO `raretrail_audience`;
GRANT SELECT ON VIEW shared_months TO `raretrail_audience`;
