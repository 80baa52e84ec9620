"""Review of predicted buildings by people: what they accept, reject and correct."""
