-- Written by tools/unity_catalog.py from the tables and views as declared; change it there.
-- The first line names the schema that --warehouse names.
USE SCHEMA security.raretrail;

CREATE OR REPLACE VIEW shared_incidents
  COMMENT 'One incident without personal data, for those who are to see how many and of what kind: no name, address, ARN, text or id'
AS
SELECT first_date, severity, round(score, 0) AS score, principal_kind, country_iso_code, country_name, detectors,
       commands, findings, event_count, (CAST(EXTRACT(DAY FROM (last_time - first_time)) AS DOUBLE) * 1440 + CAST(EXTRACT(HOUR FROM (last_time - first_time)) AS DOUBLE) * 60 + CAST(EXTRACT(MINUTE FROM (last_time - first_time)) AS DOUBLE) + floor(CAST(EXTRACT(SECOND FROM (last_time - first_time)) AS DOUBLE)) / 60) AS minutes, account_environments,
       account_data, regulations, criticality, alerted_at IS NOT NULL AS is_alerted,
       suppressed_by IS NOT NULL AS is_suppressed, coalesce(state, 'open') AS state, verdict,
       (CAST(EXTRACT(DAY FROM (verdict_at - last_time)) AS DOUBLE) * 1440 + CAST(EXTRACT(HOUR FROM (verdict_at - last_time)) AS DOUBLE) * 60 + CAST(EXTRACT(MINUTE FROM (verdict_at - last_time)) AS DOUBLE) + floor(CAST(EXTRACT(SECOND FROM (verdict_at - last_time)) AS DOUBLE)) / 60) AS minutes_to_verdict
FROM incidents;

CREATE OR REPLACE VIEW shared_months
  COMMENT 'Incidents of a month by severity and verdict: numbers alone'
AS
SELECT substring(CAST(first_date AS STRING), 1, 7) AS `month`, severity, coalesce(verdict, 'none') AS verdict,
       count(*) AS incidents, count(CASE WHEN is_alerted THEN 1 END) AS alerted,
       median(minutes_to_verdict) AS median_minutes_to_verdict
FROM shared_incidents
GROUP BY substring(CAST(first_date AS STRING), 1, 7), severity, coalesce(verdict, 'none');
