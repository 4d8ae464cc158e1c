"""Tables of a page: which columns are shown, in which order, and under which names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st


def table(data: pd.DataFrame, columns: Mapping[str, Any], *, key: str, height: Any = "content", **more: Any) -> None:
    """Draw the ``columns`` of ``data`` in their order, each as it is configured or under the name that is given.

    ``height``: as many pixels, or all rows. ``more``: what else Streamlit is to know.
    """
    st.dataframe(
        data,
        hide_index=True,
        width="stretch",
        height=height,
        key=key,
        column_order=list(columns),
        column_config=dict(columns),
        **more,
    )
