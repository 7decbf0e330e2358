"""The URLs of the dashboard, for `path("snakepit/", include("snakepit.pools.dashboard.urls"))`."""

from __future__ import annotations

from django.urls import path, re_path, register_converter

from snakepit.pools.dashboard import (
    audit,
    demo,
    diagnostics,
    events,
    job,
    job_bulk,
    job_errors,
    jobs,
    node_orders,
    nodes,
    orders,
    overview,
    palette,
    periodic,
    playground,
    pool,
    pools,
    queue_orders,
    series,
    stream,
    worker,
    workers,
    workflows,
)
from snakepit.pools.dashboard.name_in_url import NameConverter
from snakepit.pools.web.greenlets import refuse_asynchronous
from snakepit.pools.web.transactions import independent_patterns

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

register_converter(NameConverter, "snakepit_name")
app_name = "snakepit"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("pools/", pools.pools, name="pools"),
    path("jobs/", jobs.jobs, name="jobs"),
    re_path(r"^jobs/all/(?P<action>cancel|retry|delete)/$", job_bulk.act, name="jobs-act"),
    path("jobs/errors/", job_errors.errors, name="job-errors"),
    path("jobs/<uuid:ident>/", job.job, name="job"),
    path("jobs/<uuid:ident>/events/", job.events, name="job-events"),
    re_path(rf"^jobs/(?P<ident>{UUID})/(?P<action>cancel|retry|clone)/$", job.act, name="job-act"),
    re_path(rf"^jobs/(?P<ident>{UUID})/(?P<which>arguments|result)/$", job.payload, name="job-payload"),
    path("periodic/", periodic.periodic, name="periodic"),
    re_path(r"^periodic/(?P<name>[a-z0-9_.-]{1,40})/(?P<action>run|pause|resume)/$", periodic.act, name="periodic-act"),
    path("workflows/", workflows.workflows, name="workflows"),
    path("workflows/<uuid:ident>/", workflows.workflow, name="workflow"),
    path("playground/", playground.playground, name="playground"),
    path("playground/run/", playground.run, name="playground-run"),
    path("playground/submit/", playground.submit, name="playground-submit"),
    path("audit/", audit.audit, name="audit"),
    path("diagnostics/", diagnostics.diagnostics, name="diagnostics"),
    path("diagnostics/report/", diagnostics.report, name="report"),
    path("diagnostics/apply/<snakepit_name:key>/", diagnostics.apply, name="apply"),
    path("pools/<snakepit_name:name>/", pool.pool, name="pool"),
    path("pools/<snakepit_name:name>/recycle/", orders.recycle, name="pool-recycle"),
    path("pools/<snakepit_name:name>/scale/", orders.scale, name="pool-scale"),
    path("pools/<snakepit_name:name>/pause/", orders.pause, name="pool-pause"),
    path("pools/<snakepit_name:name>/drain/", orders.drain, name="pool-drain"),
    path("pools/<snakepit_name:name>/resume/", orders.resume, name="pool-resume"),
    path("pools/<snakepit_name:name>/queue/pause/", queue_orders.pause_queue, name="pool-pause_queue"),
    path("pools/<snakepit_name:name>/queue/resume/", queue_orders.resume_queue, name="pool-resume_queue"),
    path("workers/", workers.workers, name="workers"),
    path("workers/<snakepit_name:ident>/", worker.worker, name="worker"),
    path("workers/<snakepit_name:ident>/recycle/", orders.recycle_worker, name="worker-recycle"),
    path("workers/<snakepit_name:ident>/stacks/", orders.stacks, name="worker-stacks"),
    path("workers/<snakepit_name:ident>/kill/", orders.kill_worker, name="worker-kill"),
    path("nodes/", nodes.nodes, name="nodes"),
    path("nodes/<snakepit_name:name>/drain/", node_orders.drain, name="node-drain"),
    path("nodes/<snakepit_name:name>/resume/", node_orders.resume, name="node-resume"),
    path("events/", events.events, name="events"),
    path("live/stream/", stream.stream, name="stream"),
    path("live/fragments/", stream.fragments, name="fragments"),
    path("live/palette/", palette.palette, name="palette"),
    path("live/series/", series.series, name="series"),
    path("demo-login/", demo.demo_login, name="demo-login"),
]
independent_patterns(refuse_asynchronous(urlpatterns))
