"""Cases of the properties that kill mutants, each named after what a fault needs to be visible."""

# LAW-1
ONE_DRAFT = "coin4, T=1.0, reject, k=1 depth=1 m=1"
ONE_LAYER = "coin4, T=1.3, reject, k=4 depth=1 m=4"
TWO_LAYERS = "coin4, T=1.0, reject, k=2 depth=2 m=4"
TOP_K = "coin4, T=1.0 top_k=2, reject, k=2 depth=3 m=7"
MIN_P = "coin4, T=1.0 min_p=0.08, reject, k=2 depth=2 m=4"
PENALTY = "coin4, T=1.0 penalty=1.6, reject, k=2 depth=2 m=5"
FILTERS = "coin6, T=0.8 top_k=4 top_p=0.75 penalty=1.2, reject, k=3 depth=2 m=6"
ENDS = "coin4, T=1.0 eos=[0, 2], reject, k=2 depth=3 m=8"

# LAW-3
COUPLED = "T=1.0, k=4 depth=3 m=8"

# LAW-4
SAMPLED_ONE_LAYER = "coin4, T=1.3, k=4 depth=1 m=4"

# LAW-6
UNEDITED = "coin4, T=0.5 top_k=3, k=1 depth=1 m=1"

# LAW-7
STREAM = "coin6, T=0.8 top_k=4, mixed with T=1.3 and T=0.6"

# LAW-8
SIX_TOKENS = "6 tokens"

# GREEDY-2
GREEDY_TREE = "coin6, T=0.0, k=3 depth=3 m=10"
GREEDY_PENALTY = "coin6, T=0.0 penalty=1.3, k=6 depth=2 m=12"

# TREE-4
FOUR_BEST = "coin4, k=4 depth=3 m=4"

# THEORY-4, THEORY-5
GROWING = "dice8, T=1.0, k=3 depth=4 m=2"

# COUNT-2
GREEDY_COUNT = "T=0"

# TOLD-1
TOLD_COOLER = "T=0.7 top_p=0.9"
TOLD_PLAINLY = "T=1"
FULL_CONTEXT = "T=1, to the end of the context"

# COUNT-3
BIASED = "with a bias"
