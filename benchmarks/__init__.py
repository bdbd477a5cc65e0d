"""The figures that the documents quote: one file per question, answered on real data, with the machine beside them."""
