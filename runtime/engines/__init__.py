"""What runs a graph: a table of engines, and one small protocol that each of them speaks.

``open_runner`` opens a file with the engine that was asked for, or says why that cannot be; ``open_session`` is
onnxruntime's own session, for what needs more than answers.
"""

from __future__ import annotations

from runtime.engines.runner import Port as Port
from runtime.engines.runner import Runner as Runner
from runtime.engines.runner import open_runner as open_runner
from runtime.engines.runner import why_not as why_not
from runtime.engines.session import open_session as open_session
from runtime.engines.session import why_unavailable as why_unavailable
from runtime.engines.table import DEVICES as DEVICES
from runtime.engines.table import ENGINES as ENGINES
from runtime.engines.table import FULL as FULL
from runtime.engines.table import NO_OPTIONS as NO_OPTIONS
from runtime.engines.table import Engine as Engine
from runtime.engines.table import engine_for as engine_for
