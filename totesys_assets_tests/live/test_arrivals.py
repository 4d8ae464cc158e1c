"""Arrivals in the terminal of `totesys up`: which tables, how many versions of each fact, how long after the commit."""

from __future__ import annotations

import re

import pytest

from totesys_assets.live.arrivals import Arrivals
from totesys_assets.staleness.following import begin_following, end_following
from totesys_assets.staleness.look import look
from totesys_assets_tests.conftest import Platform


def test_new_versions_are_counted_by_fact_and_told_once(platform: Platform) -> None:
    arrivals = Arrivals(platform.warehouse)  # nothing is there yet
    assert arrivals.next() == ""
    platform.refresh()
    assert re.search(r"^loaded fact_sales_order \(\d+ new versions?\), ", arrivals.next())
    assert (arrivals.next(), Arrivals(platform.warehouse).next()) == ("", "")
    platform.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    platform.refresh()
    told = arrivals.next()
    assert told.startswith("loaded fact_payment (2 new versions)")
    seconds = re.search(r", at most (\d+\.\d) s after it was seen$", told)
    assert seconds
    assert float(seconds[1]) < 60
    platform.sql("UPDATE design SET design_name = 'Other'")
    platform.refresh()
    assert re.search(r"^loaded dim_design(, \w+)*$", arrivals.next())
    assert arrivals.next() == ""


def test_where_the_log_is_followed_the_time_is_that_since_the_commit(followed: Platform) -> None:
    arrivals, core = Arrivals(followed.warehouse), followed.core
    followed.sql("UPDATE sales_order SET units_sold = units_sold + 1")
    begin_following(core)
    (request,) = look(core).requests
    end_following(core)
    assert followed.run(request).success
    assert re.search(r"^loaded fact_sales_order .* s after its commit in ToteSys$", arrivals.next())


@pytest.mark.refreshed
def test_a_fact_that_is_gone_does_not_end_the_telling(platform: Platform) -> None:
    arrivals = Arrivals(platform.warehouse)
    platform.sql("UPDATE payment SET payment_amount = payment_amount + 1")
    platform.refresh()
    with platform.warehouse.connect() as connection:
        connection.execute("DROP TABLE public.fact_payment CASCADE")
    assert arrivals.next().startswith("loaded fact_payment")
