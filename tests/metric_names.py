"""Every metric there is, as Prometheus names it: what dashboards, rules and documentation may speak of, and what
/metrics of some process has to show. A histogram stands here once, without _bucket, _sum and _count."""

OF_THE_API = frozenset(  # it looks at Redis; each process of it says the same
    {
        "riacho_redis_memory_limit_bytes",
        "riacho_redis_memory_used_bytes",
        "riacho_stage_added_total",
        "riacho_stage_demand_jobs",
        "riacho_stage_finished_total",
        "riacho_stage_high_water_jobs",
        "riacho_stage_jobs",
        "riacho_stage_low_water_jobs",
        "riacho_stage_oldest_waiting_seconds",
        "riacho_stage_paused",
        "riacho_stage_slots",
        "riacho_stage_state",
        "riacho_stage_workers",
    }
)

HISTOGRAMS = frozenset(
    {
        "http_server_request_duration_seconds",
        "messaging_process_duration_seconds",
        "riacho_batch_size",
        "riacho_job_waiting_seconds",
        "riacho_script_duration_seconds",
        "riacho_settle_size",
        "riacho_transcription_real_time_factor",
    }
)

COUNTERS_AND_GAUGES = frozenset(
    {
        "messaging_client_consumed_messages_total",
        "messaging_client_sent_messages_total",
        "riacho_job_dead_letters_total",
        "riacho_job_retries_total",
        "riacho_jobs_ended_total",
        "riacho_jobs_started_total",
        "riacho_spans_refused_total",
        "riacho_transcription_audio_seconds_total",
        "riacho_whatsapp_requests_total",
        "riacho_worker_busy",
        "riacho_worker_slots",
    }
)

# Of OTel's SDK itself, where spans are exported.
OF_THE_SDK = frozenset({"otel_sdk_processor_span_processed_total"})

METRIC_NAMES = OF_THE_API | HISTOGRAMS | COUNTERS_AND_GAUGES | OF_THE_SDK
