"""Dagster's inside: the only room that uses private parts of Dagster, dagster-postgres and dagster-shared.

``switch.py`` is its door. Each part is optional; what it buys, and which stock part takes its place:

=========================  ========================================================  ==================================
part                       what it buys                                              stock part
=========================  ========================================================  ==================================
storage.py                 a pool in place of a new connection for nearly every      dagster-postgres' three storages
                           event, which is about 250 for a run of 22 assets
event_batches.py           Dagster's own work in a first load of two years: 18 s of  ``store_event_batch`` of
                           a processor, 7.5 s once PostgreSQL makes the planned      dagster-postgres
                           events, and a third of that once it makes those of
                           materialisations
partition_events.py        one event of a step's materialisations to make those of,  ``context.add_asset_metadata``,
                           and steps that do not wait for one another's events       ``context.log_event`` and
                                                                                     ``log_dagster_event``
executor.py                steps side by side; one after the other leaves a third    ``in_process_executor``
                           of two cores idle
in_process_run.py          ``totesys refresh`` uses that executor too                ``job.execute_in_process``
run_launcher.py,           a run begins without importing Dagster and the assets,    ``DefaultRunLauncher``
fork_server.py,            which takes 2 s on two idle cores
run_worker.py
run_coordinator.py         a sensor's run starts at once; the queue is looked at     ``QueuedRunCoordinator``
                           every second at best. Ticks begin every second, not
                           every five
dev.py                     ``totesys up`` runs a webserver that is guarded against   ``dagster dev``
                           other sites' pages
tiered_launcher.py         on ECS, a refresh need not wait for a task, which takes   ``EcsRunLauncher`` of dagster-aws
                           a minute to begin
=========================  ========================================================  ==================================

deploy/stock/dagster.yaml switches all of it off: that instance uses stock Dagster only, and is slower, no more. So an
upgrade of Dagster need not wait for this room. test_dagster_internals.py lists each private name that the room uses,
with the parameters that it expects; test_stock_dagster.py runs the platform without the room.

No module here imports a room above it, such as automation/ and assets/: what it must know of those is in names.py, or
is handed to it.
"""
