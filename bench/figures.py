"""Every figure: its name, what it must reach, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench import (
    adapters_figures,
    batch_figures,
    fairness_figures,
    http_figures,
    import_figures,
    media_figures,
    million_figures,
    noop_figures,
    polling_figures,
    prefix_figures,
    production_figures,
    structured_figures,
    text_figures,
    tuning_figures,
    tuning_labels,
    tuning_pictures,
    tuning_texts,
    webhook_figures,
)
from bench.report import Measurement
from bench.rig import Rig


@dataclass(frozen=True, slots=True)
class Figure:
    """``must_reach`` is a ``bench.report.Target`` in words."""

    name: str
    must_reach: str
    measure: Callable[[Rig], Measurement]


FIGURES = (
    Figure("text_batch_vs_static", ">= 0.70", text_figures.vs_static),
    Figure("text_batch_vs_one_by_one", ">= 10", text_figures.vs_one_by_one),
    Figure("shared_preamble_vs_apart", ">= 2", prefix_figures.shared_preamble),
    Figure("structured_vs_plain", ">= 0.8", structured_figures.structured_vs_plain),
    Figure("production_2000", ">= 1", production_figures.production_2000),
    Figure("adapters_8_vs_1", ">= 0.7", adapters_figures.eight_vs_one),
    Figure("images_vs_bare_diffusers", ">= 0.95", media_figures.images_vs_bare),
    Figure("images_vs_one_by_one", ">= 1.5", media_figures.images_vs_one_by_one),
    Figure("speech_vs_bare_hibari", ">= 0.9", media_figures.speech_vs_bare),
    Figure("first_progress_step", "<= 2", media_figures.first_progress),
    Figure("text_latency_beside_images", "<= 20", media_figures.text_beside_images),
    Figure("sft_vs_transformers_trainer", ">= 0.95", tuning_figures.steps_vs_trainer),
    Figure("checkpoint_cost", "<= 0.05", tuning_figures.checkpoint_cost),
    Figure("house_style_after", ">= 0.8", tuning_texts.house_style_after),
    Figure("house_style_before", "<= 0.18", tuning_texts.house_style_before),
    Figure("house_style_loss", "<= 0.7", tuning_texts.house_style_loss),
    Figure("full_weights_loss", "<= 0.7", tuning_texts.full_weights_loss),
    Figure("dpo_accuracy_gain", ">= 0.2", tuning_texts.dpo_accuracy),
    Figure("topics_macro_f1", ">= 0.85", tuning_labels.topics_f1),
    Figure("entities_f1", ">= 0.7", tuning_labels.entities_f1),
    Figure("digits_diffusion", ">= 0.85", tuning_pictures.digits_diffusion),
    Figure("digits_gan", ">= 0.6", tuning_pictures.digits_gan),
    Figure("digits_vae_error", "<= 0.08", tuning_pictures.digits_vae),
    Figure("style_gain", ">= 0.3", tuning_pictures.style),
    Figure("style_names", ">= 0.8", tuning_pictures.style_names),
    Figure("noop_jobs_vs_celery", ">= 1.0", noop_figures.noop_jobs),
    Figure("start_latency_vs_celery", "<= 4", noop_figures.start_latency),
    Figure("slowdown_vs_first_come", "<= 0.3", fairness_figures.slowdown_vs_first_come),
    Figure("model_loads_vs_greedy", "<= 1.3", fairness_figures.loads_vs_greedy),
    Figure("flood_wait_vs_bound", "<= 1", fairness_figures.flood_wait),
    Figure("flood_vs_simulation", "<= 1.2", fairness_figures.flood_vs_simulation),
    Figure("claim_with_million", "<= 2", fairness_figures.claim_with_million),
    Figure("get_job_vs_bare_route", ">= 0.30", http_figures.get_job),
    Figure("post_job_vs_delay", ">= 0.8", http_figures.post_job),
    Figure("polls_304_vs_200", ">= 1.3", polling_figures.polls_304_vs_200),
    Figure("poll_latency_beside_sse", "<= 2", polling_figures.poll_latency_beside_sse),
    Figure("get_job_with_million", "<= 1.2", http_figures.get_job_with_million),
    Figure("webhooks_per_second", ">= 100", webhook_figures.webhooks_per_second),
    Figure("batch_with_dead_endpoint", ">= 0.98", webhook_figures.batch_with_dead_endpoint),
    Figure("fake_rows_vs_script", ">= 0.2", batch_figures.fake_rows),
    Figure("peak_memory_growth", "<= 1.3", batch_figures.peak_memory),
    Figure("million_rows", "<= 1.3", million_figures.million_rows),
    Figure("api_import_time", "<= 2", import_figures.api_import_time),
    Figure("api_resident_memory", "<= 150", http_figures.api_resident_memory),
)
