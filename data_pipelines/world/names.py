"""Draws given names and surnames in Latin script, by gender: from faker's locales, or from our own short lists.

faker has no romanised Arabic, Korean, Mongolian or Pakistani names that agree with a gender, and its romanised Chinese
given names have none; the most common names of those cultures are listed here instead, and combined at random.
"""

from __future__ import annotations

import functools

import faker
import numpy as np

_LISTS = """
arabic female: Aisha Amal Amina Basma Dalal Dina Farah Fatima Hala Hanan Huda Iman Jamila Karima Lamia Layla Lubna
  Maha Mariam Maysa Mona Nadia Najwa Noura Rana Rania Rasha Reem Salma Samar Samira Sana Shatha Suad Thuraya Wafa
  Yasmin Zainab
arabic male: Abdullah Ahmad Ali Amir Anas Bilal Faisal Fares Ghassan Hadi Hamza Hasan Hisham Ibrahim Idris Jamal Karim
  Khalid Mahmoud Majid Marwan Mustafa Nabil Nasser Omar Qasim Rami Rashid Saad Salim Sami Tariq Usama Walid Yasir
  Youssef Zaid Ziad
arabic surnames: Al-Amin Al-Ansari Al-Farsi Al-Ghamdi Al-Hashimi Al-Jabri Al-Khatib Al-Mansouri Al-Najjar Al-Qasimi
  Al-Rashidi Al-Saleh Al-Tamimi Al-Zahrani Awad Barakat Darwish Fawzi Haddad Hamdan Hijazi Jaber Kanaan Mansour Murad
  Nassar Odeh Qabbani Rahal Sabbagh Saliba Shaheen Sharif Suleiman Taha Tawfiq Younis Zaki
chinese female: Baozhu Caihong Chunhua Fangfang Guiying Hongmei Hui Huifang Jiaying Jingyi Junfang Lanying Lifen Lihua
  Lijuan Meiling Mengyao Ningning Peiyu Qiaolian Ruolan Shufen Shuqin Siqi Wenjing Xiaoyan Xinyi Xiulan Xueying
  Yanling Yijun Yulan Yuting Zhenzhen
chinese male: Bingwen Bojing Changming Chaoxiang Dawei Delun Fengge Guangli Guoqiang Haoran Hongwei Jianguo Jianhong
  Jinhai Junjie Kaiwen Liwei Minghao Mingzhe Peng Qiang Qinghua Rongguang Ruiming Shihong Weimin Weisheng Xiaobo
  Xuefeng Yichen Yongjun Zexuan Zhengguo Zihao
chinese surnames: Bai Cai Cao Chen Cui Deng Ding Dong Duan Fan Feng Fu Gao Gu Guo Han Hao He Hou Hu Huang Jiang Kong
  Lai Lei Li Liang Liao Lin Liu Lu Luo Ma Meng Mo Pan Peng Qian Qin Qiu Ren Shao Shen Shi Song Su Sun Tan Tang Tao Wan
  Wang Wei Wu Xia Xiao Xie Xiong Xu Xue Yan Yang Yao Ye Yin Yu Yuan Yue Zeng Zhang Zhao Zheng Zhong Zhou Zhu Zou
korean female: Ae-ra Bo-ram Bo-young Chae-won Da-eun Eun-bi Eun-ji Eun-kyung Ga-eun Ha-eun Hae-won Hye-jin Hye-rim
  In-sook Ji-eun Ji-hye Ji-min Kyung-ja Mi-kyung Mi-ran Min-ji Na-ri Nam-joo Seo-yeon Seul-gi So-hee Soo-ah Soo-jin
  Su-bin Sun-hee Ye-jin Yoo-jung Young-hee Yu-na
korean male: Byung-hun Chang-min Chul-soo Dae-jung Do-hyun Dong-wook Gun-woo Hae-il Ho-jun Hyun-woo In-ho Jae-hyun
  Jae-sung Ji-hoon Jin-woo Joon-ho Jung-ho Ki-tae Kwang-su Kyung-min Min-jun Min-soo Sang-chul Sang-hoon Seo-jun
  Seung-min Si-woo Sung-jin Tae-hyun Tae-min Woo-jin Woo-sung Yong-ho Young-jae
korean surnames: An Bae Baek Byun Cha Chae Cho Choi Chung Eom Gil Goo Ha Han Heo Hong Hwang Im Jang Jeon Ji Jin Joo
  Jung Kang Kim Ko Kwak Kwon Lee Lim Ma Min Moon Nam No Oh Ok Pae Park Ryu Seo Seok Shim Shin Sohn Song Sung Woo Yang
  Yeo Yoo Yoon
mongolian female: Altantsetseg Anujin Ariunaa Azzaya Bayarmaa Bolormaa Delgermaa Dolgorsuren Enkhjargal Enkhtuya
  Erdenechimeg Gerel Khaliun Khulan Munkhtsetseg Narantsetseg Nomin Nyamtsetseg Odgerel Oyuna Sarangerel Solongo
  Tsetseg Tuya Undraa Uyanga Zolzaya
mongolian male: Altangerel Amarbayar Bat-Erdene Batbayar Batzorig Bayarsaikhan Bilguun Boldbaatar Chuluun Davaadorj
  Dorj Enkhbat Erdene Ganbold Ganzorig Gantulga Jargal Khuyag Munkhbat Naranbaatar Nergui Otgonbayar Purev Sukhbat
  Temuulen Tomorbaatar Tuvshin
mongolian surnames: Badamdorj Baldan Batjargal Batmunkh Byambadorj Choijamts Damdin Dashdorj Dugersuren Galsan Gombo
  Gonchig Gurragchaa Jambal Khurelbaatar Luvsan Namjil Norov Ochir Puntsag Rinchen Sambuu Sodnom Tserendorj
  Tumurbaatar Yondon Zundui
pakistani female: Aaliya Amber Anam Asma Ayesha Bushra Erum Farzana Fozia Ghazala Hina Huma Iqra Kiran Lubna Maham
  Mahnoor Mehwish Naila Nazia Nimra Rabia Rida Rubina Saba Sadia Saima Sana Sidra Sumera Tahira Uzma Zara Zunaira
pakistani male: Adeel Adnan Ahsan Aqeel Arslan Asad Asif Atif Bilal Danish Ehsan Faizan Farhan Fawad Haris Hassan
  Imran Irfan Junaid Kamran Kashif Moeen Nadeem Naveed Noman Rehan Rizwan Saad Salman Shahid Shoaib Tahir Waqas
  Zeeshan
pakistani surnames: Abbasi Afridi Akhtar Anjum Ansari Awan Baig Baloch Bhatti Butt Chaudhry Dar Durrani Farooqi Ghauri
  Gill Hashmi Iqbal Javed Kazmi Khattak Khokhar Lodhi Malik Memon Mirza Mughal Naqvi Niazi Qureshi Rajput Rana Rizvi
  Sethi Shaikh Siddiqui Soomro Tariq Yousafzai Zaidi
"""


def parse(text: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns lists of names by the first word of their headings; further lines of an entry are indented by two."""
    lists: dict[str, tuple[tuple[str, ...], ...]] = {}
    for entry in text.replace("\n  ", " ").strip().splitlines():
        heading, _, names = entry.partition(": ")
        key = heading.split()[0]
        lists[key] = (*lists.get(key, ()), tuple(names.split()))
    return lists


LISTS = parse(_LISTS)
"""Our own names: key -> (female given names, male given names, surnames)."""

_ROMANISED = {"ja_JP"}  # locales whose provider has separate methods for names in Latin script


@functools.cache
def _faker(locale: str) -> faker.Faker:
    # constructing one takes far longer than a name; each draw reseeds it, so no draw depends on earlier ones
    return faker.Faker(locale, providers=["faker.providers.person"], use_weighting=False)


def draw_name(rng: np.random.Generator, source: str, gender: str) -> tuple[str, str]:
    """Draws a given name and a surname of a culture.

    Args:
      rng: all randomness; the draw depends on its state alone.
      source: a faker locale, or a key of :data:`LISTS`.
      gender: ``female`` or ``male``.
    """
    if source in LISTS:
        given = LISTS[source][0 if gender == "female" else 1]
        surnames = LISTS[source][2]
        return given[rng.integers(len(given))], surnames[rng.integers(len(surnames))]
    fake = _faker(source)
    fake.seed_instance(int(rng.integers(2**62)))
    if source in _ROMANISED:
        return getattr(fake, f"first_romanized_name_{gender}")(), fake.last_romanized_name()
    given, surname = getattr(fake, f"first_name_{gender}")(), getattr(fake, f"last_name_{gender}")()
    return given.replace("’", "'"), surname.replace("’", "'")
