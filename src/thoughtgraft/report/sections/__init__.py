"""The report's sections, one file each: from the analysis' tables to blocks of text, tables and figures."""
