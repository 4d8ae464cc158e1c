"""The executor of this project's jobs: it runs the steps side by side, in threads of the run's process.

Belongs here: the order of the steps, and ending them all. Does not belong here: what a step does.

A process per step would cost seconds for each of up to 33 steps. One step at a time would leave a third of two cores
idle: while one step waits for PostgreSQL, another can read, compare and write. Threads suffice, because the steps work
in DuckDB, delta-rs and PostgreSQL, which release Python's lock.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step
from dagster._utils.interrupts import check_captured_interrupt

from totesys_assets import engine
from totesys_assets.names import LANE_TAG, PRIORITY_TAG, WAREHOUSE

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan

# Steps that run at once. Two keep two cores busy, because DuckDB, delta-rs and the servers work beside each of them.
# Each further step would need more memory.
STEPS = 2
# Steps of a lane under way at once, by the tag of their op. A lane goes by priority: a step waits for those before it.
# The others are one at a time: all captures of a source share one snapshot, which is one connection.
WIDTHS = {WAREHOUSE: STEPS}
_POLL_SECONDS = 0.2
# After an interrupt, steps that have not ended within this time are abandoned.
_GRACE_SECONDS = 5


class SideBySideExecutor(dg.Executor):
    """Dagster's in-process executor, but with several steps at once."""

    def __init__(self, in_process: dg.Executor) -> None:
        self._in_process = in_process

    @property
    def retries(self) -> Any:
        """Whether steps are retried."""
        return self._in_process.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Events of the run, as they happen."""
        yield from ExecuteRunWithPlanIterable(
            execution_plan=execution_plan,
            iterator=_events,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


@dataclass
class _Message:
    """What a step's thread reports: an event, or that the step has ended, with the error that ended it from outside."""

    key: str
    event: dg.DagsterEvent | None = None
    broken: BaseException | None = None


class StepOrder:
    """Decides which step starts next. Pure: it knows keys, lanes and priorities."""

    def __init__(self, steps: Mapping[str, tuple[str | None, int]], *, at_once: int = STEPS) -> None:
        self._steps, self._at_once = dict(steps), at_once
        self._to_come = set(steps)
        self._ready: set[str] = set()
        self._running: set[str] = set()

    def ready(self, key: str) -> None:
        """Note that the step's inputs are ready, for its first try or a retry."""
        self._to_come.add(key)
        self._ready.add(key)

    def ended(self, key: str) -> None:
        """Note that the step has ended."""
        self._running.remove(key)
        self._to_come.remove(key)

    def next(self) -> str | None:
        """The step to start now, which then counts as running; None if none may start yet."""
        if len(self._running) >= self._at_once:
            return None
        in_order = sorted(self._ready, key=lambda key: (-self._steps[key][1], key))
        fitting = [key for key in in_order if self._fits(key)]
        # If no step runs, the steps of higher priority never become ready, because their inputs failed.
        chosen = next(iter(fitting if self._running else fitting or in_order), None)
        if chosen is not None:
            self._ready.discard(chosen)
            self._running.add(chosen)
        return chosen

    def _fits(self, key: str) -> bool:
        lane, priority = self._steps[key]
        if lane is None:
            return True
        busy = Counter(self._steps[running][0] for running in self._running)[lane]
        before = any(other == lane and more > priority for other, more in map(self._steps.__getitem__, self._to_come))
        return busy < WIDTHS.get(lane, 1) and not before


def _events(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
    steps = execution_plan.get_steps_to_execute_in_topo_order()
    order = StepOrder({step.key: (step.tags.get(LANE_TAG), int(step.tags.get(PRIORITY_TAG, 0))) for step in steps})
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    threads: dict[str, threading.Thread] = {}
    with (
        execution_plan.start(
            retry_mode=job_context.retry_mode, step_dependency_config=job_context.step_dependency_config
        ) as active,
        ExitStack() as capturing,
    ):
        logs = job_context.instance.compute_log_manager
        log_key = logs.build_log_key_for_run(job_context.run_id, uuid4().hex[:8])
        try:
            with _without_interrupts():
                log_context = capturing.enter_context(logs.capture_logs(log_key))
            yield dg.DagsterEvent.capture_logs(job_context, [step.key for step in steps], log_key, log_context)
        except Exception as error:  # a run without captured output is better than no run
            job_context.log.error(f"What the run prints is not kept: {error}")
        try:
            while not active.is_complete:
                for step in active.get_steps_to_execute():
                    order.ready(step.key)
                while (key := order.next()) is not None:
                    context = job_context.for_step(active.get_step_by_key(key), active.get_known_state())
                    threads[key] = _started(context, messages)
                if not threads:
                    active.sleep_til_ready()
                for each in _new(messages):
                    if each.event is not None:
                        yield each.event
                        active.handle_event(each.event)
                        continue
                    threads.pop(each.key).join()
                    order.ended(each.key)
                    if each.broken is not None:
                        raise each.broken
                    active.verify_complete(job_context, each.key)
                    yield from active.plan_events_iterator(job_context)
                if check_captured_interrupt():
                    active.check_for_interrupts()
                    raise dg.DagsterExecutionInterruptedError
        finally:
            _end(threads, job_context.run_id)
        try:
            capturing.close()
        except Exception as error:
            job_context.log.error(f"What the run printed may not be kept: {error}")


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Programs that are started in the block never get SIGINT, which Ctrl-C sends to all programs of a terminal.

    Those that Dagster copies the output with would print a traceback. They end with this process, which gets every
    signal as ever.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _new(messages: queue.SimpleQueue[_Message]) -> Iterator[_Message]:
    """The messages so far; waits a moment for the first."""
    try:
        yield messages.get(timeout=_POLL_SECONDS)
        while True:
            yield messages.get_nowait()
    except queue.Empty:
        return


def _started(context: dg.StepExecutionContext, messages: queue.SimpleQueue[_Message]) -> threading.Thread:
    """A thread that executes a step."""

    def execute() -> None:
        engine.work_for(context.run_id)
        # While a step runs, Dagster takes every log message of the process for that step's.
        handler, here = context.log._dagster_handler, threading.get_ident()
        whatever = handler.filter
        handler.filter = lambda record: record.thread == here and whatever(record)  # type: ignore[method-assign]
        broken: BaseException | None = None
        try:
            for event in dagster_event_sequence_for_step(context):
                messages.put(_Message(context.step.key, event))
        except BaseException as error:
            broken = error
        messages.put(_Message(context.step.key, broken=broken))

    thread = threading.Thread(target=execute, name=context.step.key, daemon=True)
    thread.start()
    return thread


def _end(threads: Mapping[str, threading.Thread], run_id: str) -> None:
    """End the running steps, after an error or an interrupt. Nothing is lost: the next refresh does their work."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(thread.is_alive() for thread in threads.values()) and time.monotonic() < deadline:
        engine.interrupt(run_id)
        time.sleep(_POLL_SECONDS / 4)
