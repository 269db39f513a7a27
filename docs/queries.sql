-- Ready queries on the tables of Guichet (docs/schema.md). A test runs each of them.
--
-- Words that begin with a colon are parameters: DBeaver and DataGrip ask for them; in psql give them before, quoted,
-- e.g. \set day_from '''2026-03-02'''; in sqlite3, .parameter set :n 20. Times are UTC. What is marked `postgresql`
-- does not run on SQLite. The role guichet_reader (scripts/create_db.py) may run them all. Rows to try them on:
-- docs/samples/predictions.sql.

-- name: job
-- One job with its rows and their scores (:job_id).
SELECT j.id, j.state, v.name AS model, v.version, i.row_index, o.prediction, o.label, o.probability, i.features, i.faults
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
JOIN model_inputs i ON i.job_id = j.id
LEFT JOIN model_outputs o ON o.input_id = i.id AND o.model_version_id = j.model_version_id
WHERE j.id = :job_id
ORDER BY i.row_index;

-- name: lineage
-- Why each row of a job got its answer: request, caller, version, artefact, score, explanation, outcome (:job_id).
SELECT row_index, request_id, caller, request_route, model, model_version, model_sha256, model_promoted_by, job_attempts,
       prediction, label, probability, threshold, explanation_method, outcome_label, outcome_recorded_by, features
FROM lineage
WHERE job_id = :job_id
ORDER BY row_index;

-- name: days
-- What was asked from a day on, before another (:day_from, :day_before), newest first.
SELECT j.created_at, j.id, v.name AS model, v.version, i.row_index, o.prediction, o.label, o.probability
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
JOIN model_inputs i ON i.job_id = j.id
LEFT JOIN model_outputs o ON o.input_id = i.id AND o.model_version_id = j.model_version_id
WHERE j.created_at >= :day_from AND j.created_at < :day_before
ORDER BY j.id DESC, i.row_index;

-- name: model
-- What one model answered, newest first (:model, :n).
SELECT j.created_at, j.id, v.version, i.row_index, o.prediction, o.label, o.probability, o.threshold
FROM model_outputs o
JOIN model_versions v ON v.id = o.model_version_id
JOIN model_inputs i ON i.id = o.input_id
JOIN jobs j ON j.id = i.job_id
WHERE v.name = :model
ORDER BY o.id DESC
LIMIT :n;

-- name: last
-- The newest rows of all models (:n).
SELECT o.created_at, v.name AS model, v.version, i.job_id, i.row_index, o.prediction, o.label, o.probability
FROM model_outputs o
JOIN model_versions v ON v.id = o.model_version_id
JOIN model_inputs i ON i.id = o.input_id
ORDER BY o.id DESC
LIMIT :n;

-- name: volume
-- Jobs, rows and rows without a score, by day and model.
SELECT date(j.created_at) AS day, v.name AS model, v.version, count(*) AS jobs, sum(j.row_count) AS rows_asked,
       sum(j.failed_count) AS rows_without_score
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
GROUP BY date(j.created_at), v.name, v.version
ORDER BY day DESC, model, version;

-- name: decisions
-- How a model decides, by day: share of each class and mean probability (:model).
SELECT date(o.created_at) AS day, o.label, count(*) AS rows_scored, avg(o.probability) AS mean_probability,
       1.0 * count(*) / sum(count(*)) OVER (PARTITION BY date(o.created_at)) AS share
FROM model_outputs o
JOIN model_versions v ON v.id = o.model_version_id
WHERE v.name = :model
GROUP BY date(o.created_at), o.label
ORDER BY day DESC, o.label;

-- name: near_threshold
-- Decisions that a small change would have turned: nearer to the threshold than :margin.
SELECT j.id, i.row_index, v.name AS model, o.label, o.probability, o.threshold
FROM model_outputs o
JOIN model_versions v ON v.id = o.model_version_id
JOIN model_inputs i ON i.id = o.input_id
JOIN jobs j ON j.id = i.job_id
WHERE abs(o.probability - o.threshold) < :margin
ORDER BY abs(o.probability - o.threshold);

-- name: feature
-- A feature beside the score (:model, :feature).
SELECT i.job_id, i.row_index, i.features ->> :feature AS value, o.prediction, o.probability
FROM model_outputs o
JOIN model_versions v ON v.id = o.model_version_id
JOIN model_inputs i ON i.id = o.input_id
WHERE v.name = :model
ORDER BY o.id DESC;

-- name: missing_values
-- postgresql: How often each feature of a model was null (:model).
SELECT f.key AS feature, count(*) AS rows_asked, count(*) FILTER (WHERE f.value = 'null') AS rows_null
FROM model_inputs i
JOIN jobs j ON j.id = i.job_id
JOIN model_versions v ON v.id = j.model_version_id
CROSS JOIN LATERAL jsonb_each(i.features) AS f
WHERE v.name = :model AND i.faults IS NULL
GROUP BY f.key
ORDER BY rows_null DESC, f.key;

-- name: failures
-- Jobs that failed, and why, newest first (:n).
SELECT j.finished_at, j.id, v.name AS model, v.version, j.attempt, j.error ->> 'code' AS code,
       j.error ->> 'message' AS message
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
WHERE j.state = 'failed'
ORDER BY j.id DESC
LIMIT :n;

-- name: faults
-- postgresql: What was wrong with the rows that have no score, by model, place and code.
SELECT v.name AS model, fault ->> 'pointer' AS pointer, fault ->> 'code' AS code, count(*) AS times
FROM model_inputs i
JOIN jobs j ON j.id = i.job_id
JOIN model_versions v ON v.id = j.model_version_id
CROSS JOIN LATERAL jsonb_array_elements(i.faults) AS fault
GROUP BY v.name, fault ->> 'pointer', fault ->> 'code'
ORDER BY times DESC;

-- name: refusals
-- Requests that were refused, by day, status and code.
SELECT date(created_at) AS day, status, code, sum(times) AS times, max(request_id) AS for_example
FROM error_logs
GROUP BY date(created_at), status, code
ORDER BY day DESC, times DESC;

-- name: latency
-- postgresql: Seconds from acceptance to result, by day and lane: median, 95th and 99th percentile.
SELECT date(created_at) AS day, lane, count(*) AS jobs,
       percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)) AS seconds
FROM jobs
WHERE state = 'succeeded'
GROUP BY date(created_at), lane
ORDER BY day DESC, lane;

-- name: waiting
-- What waits or runs now, by lane and model.
SELECT j.lane, v.name AS model, v.version, j.state, count(*) AS jobs, min(j.created_at) AS oldest
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
WHERE j.state IN ('queued', 'running')
GROUP BY j.lane, v.name, v.version, j.state
ORDER BY oldest;

-- name: retried
-- Jobs that took more than one attempt, newest first (:n).
SELECT id, kind, state, attempt, crash_count, leased_by, created_at, finished_at
FROM jobs
WHERE attempt > 1
ORDER BY id DESC
LIMIT :n;

-- name: files
-- CSV files and how far they are scored, newest first (:n).
SELECT j.id, f.filename, j.state, f.rows_done, j.row_count, f.rows_failed, f.chunks_done, f.chunk_count
FROM csv_files f
JOIN jobs j ON j.id = f.job_id
ORDER BY j.id DESC
LIMIT :n;

-- name: two_versions
-- The same input, scored by two versions, where they decide differently.
SELECT i.job_id, i.row_index, a.model_version_id AS one, a.prediction AS says, b.model_version_id AS other,
       b.prediction AS and_says
FROM model_outputs a
JOIN model_outputs b ON b.input_id = a.input_id AND b.model_version_id > a.model_version_id
JOIN model_inputs i ON i.id = a.input_id
WHERE a.prediction <> b.prediction
ORDER BY a.input_id;

-- name: callers
-- Who asked how much, by key (null: nobody was asked for one).
SELECT j.owner, v.name AS model, count(*) AS jobs, sum(j.row_count) AS rows_asked, max(j.created_at) AS last_time
FROM jobs j
JOIN model_versions v ON v.id = j.model_version_id
GROUP BY j.owner, v.name
ORDER BY rows_asked DESC;

-- name: sizes
-- postgresql: The tables by the room that they take, with their indexes.
SELECT relname, pg_size_pretty(pg_total_relation_size(oid)) AS size
FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
ORDER BY pg_total_relation_size(oid) DESC;
