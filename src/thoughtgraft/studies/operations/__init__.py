"""Can the arithmetic be read from the thoughts?"""
