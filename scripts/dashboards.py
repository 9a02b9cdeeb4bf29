#!/usr/bin/env python3
"""Writes the dashboards for Grafana into a folder, as JSON: fleet, pool, scaler, stores.

    dashboards.py FOLDER
"""

import json
import pathlib
import sys

POOL = 'namespace="$namespace",pool="$pool"'
ALL = 'namespace="$namespace"'
SCALER = 'max by (pool) (millrace_scaler_{}{{namespace="$namespace"}})'
ONE = "max(millrace_scaler_{}{{" + POOL + "}})"


def quantile(share, metric, labels, by=""):
    return f"histogram_quantile({share}, sum by (le{by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def rate(metric, labels, by):
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def mean(metric, labels):
    parts = [f"sum(rate({metric}_{part}{{{labels}}}[$__rate_interval]))" for part in ("sum", "count")]
    return f"{parts[0]} / {parts[1]}"


# Title, uid, whether it has a pool to choose, and panels: title, unit, queries (legend, expression).
DASHBOARDS = {
    "fleet": ("Millrace / fleet", False, [
        ("Backlog by pool", "short", [("{{pool}}", SCALER.format("backlog"))]),
        ("Age of the oldest waiting job", "s", [("{{pool}}", SCALER.format("oldest_seconds"))]),
        ("Workers by pool", "short", [("{{pool}}", SCALER.format("workers"))]),
        ("Jobs ended per second", "short", [("{{outcome}}", rate("millrace_worker_jobs_total", ALL, "outcome"))]),
        ("Requests per second", "reqps", [("{{route}} {{status}}", rate("millrace_gateway_requests_total", ALL, "route, status"))]),
        ("Time to answer, 95 %", "s", [("{{route}}", quantile(0.95, "millrace_gateway_request_seconds", ALL, ", route"))]),
        ("New jobs per second", "short", [("{{pool}} {{class}}", rate("millrace_gateway_submissions_total", ALL + ',outcome="new"', "pool, class"))]),
        ("Input of new jobs", "Bps", [("{{pool}}", rate("millrace_gateway_input_bytes_total", ALL, "pool"))]),
    ]),
    "pool": ("Millrace / pool", True, [
        ("Backlog and leased jobs", "short", [("backlog", ONE.format("backlog")), ("leased", ONE.format("leased"))]),
        ("Workers", "short", [("workers", ONE.format("workers")), ("loading", ONE.format("loading_workers")), ("wanted", ONE.format("wanted_workers"))]),
        ("Jobs ended per second", "short", [("{{outcome}}", rate("millrace_worker_jobs_total", POOL, "outcome"))]),
        ("Age of the oldest waiting job", "s", [("oldest", ONE.format("oldest_seconds"))]),
        ("Items per batch", "short", [("mean", mean("millrace_worker_batch_items", POOL)), ("95 %", quantile(0.95, "millrace_worker_batch_items", POOL))]),
        ("Time of a batch", "s", [(f"{share:.0%}", quantile(share, "millrace_worker_batch_seconds", POOL)) for share in (0.5, 0.95, 0.99)]),
        ("Share of time in batches, per worker", "percentunit", [("{{pod}}", f"sum by (pod) (rate(millrace_worker_batch_seconds_sum{{{POOL}}}[$__rate_interval]))")]),
        ("Cold start", "s", [("{{pod}}", f"max by (pod) (millrace_worker_cold_start_seconds{{{POOL}}})")]),
        ("Longest phases of a cold start", "s", [("{{phase}}", f"max by (phase) (millrace_worker_cold_start_phase_seconds{{{POOL}}})")]),
        ("Arrival of a job to its end", "s", [(f"{share:.0%}", quantile(share, "millrace_inference_request_duration_seconds", POOL)) for share in (0.5, 0.95, 0.99)] + [("objective", ONE.format("objective_seconds"))]),
        ("Time in the queue, to prepare, in a batch, to settle: 95 %", "s", [(step, quantile(0.95, f"millrace_worker_{step}_seconds", POOL)) for step in ("queue", "prepare", "batch", "settle")]),
        ("Redeliveries per second", "short", [("redelivered", f"sum(rate(millrace_worker_redelivered_total{{{POOL}}}[$__rate_interval]))")]),
    ]),
    "scaler": ("Millrace / scaler decisions", True, [
        ("Workers wanted and present", "short", [("wanted ({{mode}})", "max by (mode) (millrace_scaler_wanted_workers{" + POOL + "})"), ("present", ONE.format("workers"))]),
        ("Arrivals per second", "short", [("arrivals", ONE.format("arrivals")), ("expected", ONE.format("forecast_arrivals"))]),
        ("Share of late jobs", "percentunit", [("late", ONE.format("late_share")), ("allowed", ONE.format("allowed_late_share"))]),
        ("Backlog", "short", [("backlog", ONE.format("backlog")), ("leased", ONE.format("leased"))]),
        ("Calls of KEDA per second", "short", [("{{call}} {{code}}", rate("millrace_scaler_calls_total", ALL, "call, code"))]),
        ("Open streams of KEDA", "short", [("{{call}}", f"sum by (call) (millrace_scaler_streams{{{ALL}}})")]),
        ("Time to read all pools", "s", [(f"{share:.0%}", quantile(share, "millrace_scaler_sample_seconds", ALL)) for share in (0.5, 0.99)]),
    ]),
    "stores": ("Millrace / broker and ledger", False, [
        ("Failed readings per second", "short", [("{{source}}", rate("millrace_scaler_sample_failures_total", ALL, "source"))]),
        ("Time to read all pools, 99 %", "s", [("99 %", quantile(0.99, "millrace_scaler_sample_seconds", ALL))]),
        ("Requests answered with 5xx per second", "reqps", [("{{status}}", rate("millrace_gateway_requests_total", ALL + ',status=~"5.."', "status"))]),
        ("Publications that the ledger did not record, per second", "short", [("unconfirmed", f"sum(rate(millrace_gateway_unconfirmed_total{{{ALL}}}[$__rate_interval]))")]),
        ("Leases lost and jobs given back per second", "short", [("{{pool}} {{outcome}}", rate("millrace_worker_jobs_total", ALL + ',outcome=~"lease_lost|released"', "pool, outcome"))]),
        ("Failed calls of the blob store per second", "short", [("{{operation}} {{kind}}", rate("millrace_blob_store_failures_total", ALL, "operation, kind"))]),
        ("Days until the first certificate ends", "d", [("certificate", f"(min(millrace_tls_certificate_expiry_timestamp_seconds{{{ALL}}}) - time()) / 86400")]),
        ("Requests that wait for a job", "short", [("waiting", f"sum(millrace_gateway_waiting_requests{{{ALL}}})")]),
    ]),
}


def variable(name, query):
    return {
        "name": name, "type": "query", "label": name, "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "definition": query, "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1,
    }


def dashboard(name, title, has_pool, panels):
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "data source"},
        variable("namespace", "label_values(millrace_scaler_backlog, namespace)"),
    ]
    if has_pool:
        variables.append(variable("pool", 'label_values(millrace_scaler_backlog{namespace="$namespace"}, pool)'))
    return {
        "uid": f"millrace-{name}", "title": title, "tags": ["millrace"], "schemaVersion": 41, "editable": True, "graphTooltip": 1,
        "refresh": "30s", "time": {"from": "now-3h", "to": "now"}, "templating": {"list": variables},
        "panels": [
            {
                "id": index + 1, "type": "timeseries", "title": heading,
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": index % 2 * 12, "y": index // 2 * 8},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + number), "expr": expression, "legendFormat": legend}
                    for number, (legend, expression) in enumerate(queries)
                ],
            }
            for index, (heading, unit, queries) in enumerate(panels)
        ],
    }


def main(folder):
    for name, (title, has_pool, panels) in DASHBOARDS.items():
        text = json.dumps(dashboard(name, title, has_pool, panels), indent=1, ensure_ascii=False)
        (pathlib.Path(folder) / f"{name}.json").write_text(text + "\n", encoding="utf-8")


main(*sys.argv[1:])
