"""Does erasing what a label is read by change the answers?"""
