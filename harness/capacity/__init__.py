"""How many machines, of which kind, for how much: the largest rate that holds, prices, demand and plans."""
