"""Keep LiteLLM from downloading its list of prices."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
