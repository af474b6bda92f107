"""Draws names for the full-size data set: from faker's locales, in Latin letters, or from our own lists.

faker has no names of Bangladesh, Ethiopia, Iran, Nepal, Sri Lanka, Taiwan or Thailand that are both in Latin letters (or
easily written in them) and known to be a woman's or a man's; and its Bulgarian list has invented names among the real ones.
The most common names of those countries are listed here, and combined at random. The other lists are in
``data_pipelines/world/names.py``.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.people.romanised import romanised
from data_pipelines.world import names as world_names

_SCRIPTS = {"ru_RU": "ru", "uk_UA": "uk", "el_GR": "el"}

# Letters that few fonts and few readers know are written as in passports (ICAO Doc 9303): Azerbaijani, Akan.
_SPELLING = str.maketrans({"’": "'", "ʻ": "'", "ə": "e", "Ə": "E", "ɔ": "o", "Ɔ": "O", "ɛ": "e", "Ɛ": "E", "ε": "e"})

_LISTS = """
bangladeshi female: Afroza Anika Arifa Ayesha Dilruba Farhana Fatema Ferdousi Hasina Jannatul Kohinoor Laila Mahbuba
  Mahmuda Mitu Momtaz Moushumi Nasrin Nazma Nilufar Nusrat Parveen Rehana Rokeya Rumana Sabina Salma Sanjida Shahnaz
  Sharmin Shirin Sultana Sumaiya Tahmina Taslima Yasmin
bangladeshi male: Abdur Abul Aminul Anisur Arif Ashraful Aziz Delwar Enamul Farid Habibur Iqbal Jahangir Jashim Kamal
  Kamrul Khaled Mahbub Mahfuz Masud Mizanur Monir Mustafizur Nazrul Rafiqul Rezaul Saiful Sajjad Shafiqul Shahin Shamim
  Sohel Tanvir Tariqul Zahid Ziaur
bangladeshi surnames: Ahmed Akand Akhter Alam Ali Amin Azad Bhuiyan Biswas Chowdhury Das Dewan Dutta Ghosh Haque Hasan
  Hossain Islam Jahan Kabir Karim Khan Mahmud Majumder Mia Miah Mollah Mondal Munshi Rahman Roy Saha Sarkar Sheikh
  Siddique Sikder Talukder Uddin
bulgarian female: Albena Aleksandra Anelia Antoaneta Bilyana Boryana Daniela Darina Denitsa Desislava Diana Elena
  Elitsa Galina Gergana Iliana Irina Iva Ivanka Ivelina Kalina Lilia Lyudmila Mariana Maya Milena Nadezhda Nevena Nikol
  Petya Plamena Polina Radka Radostina Ralitsa Rositsa Silvia Snezhana Stanislava Stefka Svetla Teodora Tsvetelina
  Vanya Velislava Vesela Violeta Yana Yordanka Zornitsa
bulgarian male: Aleksandar Angel Anton Asen Atanas Boris Borislav Boyan Daniel Delyan Dimitar Dobromir Emil Evgeni
  Filip Georgi Hristo Ivan Ivaylo Kaloyan Kamen Kiril Konstantin Krasimir Lachezar Lyubomir Martin Mihail Momchil
  Nikolay Ognyan Pavel Petar Plamen Radoslav Rosen Rumen Simeon Stanimir Stefan Stoyan Svetoslav Todor Tsvetan Valentin
  Vasil Ventsislav Veselin Vladimir Yordan Zdravko
bulgarian surnames: Aleksandrov Andreev Angelov Antonov Apostolov Asenov Atanasov Bogdanov Borisov Boyadzhiev
  Chavdarov Dimitrov Dobrev Donchev Filipov Gavrilov Genchev Georgiev Grigorov Hadzhiev Hristov Iliev Ivanov Kamenov
  Kirilov Kolev Kostov Kovachev Krastev Lazarov Marinov Markov Mihaylov Milanov Mitev Naydenov Nedelchev Nikolov Pavlov
  Penev Petkov Petrov Popov Radev Rusev Savov Simeonov Slavov Spasov Stanchev Stefanov Stoilov Stoyanov Tanev Todorov
  Tsankov Tsvetkov Valchev Vasilev Velikov Yordanov Zahariev Zhelev
ethiopian female: Abeba Alemitu Almaz Aster Azeb Bethlehem Birtukan Dinkinesh Eleni Emebet Etenesh Fikirte Freweyni
  Genet Hana Helen Hirut Kalkidan Konjit Lemlem Liya Mahlet Martha Mekdes Meseret Mihret Mulu Netsanet Rahel Saba Sara
  Selam Senait Sosina Tigist Tirunesh Tsehay Worknesh Yordanos Zenebech
ethiopian male: Abebe Abel Addisu Alemayehu Amanuel Assefa Bekele Berhanu Biruk Dawit Demissie Eyob Fekadu Fikru
  Getachew Girma Haile Henok Kassahun Kebede Kifle Lemma Lidetu Mekonnen Mesfin Mulugeta Natnael Samuel Sisay Solomon
  Surafel Tadesse Tamrat Tefera Tesfaye Tewodros Worku Yared Yohannes Zerihun
ethiopian surnames: Abate Abebe Admasu Alemu Ayele Asfaw Assefa Bekele Belay Berhane Dagne Demeke Desta Endale Fantahun
  Gebre Gebremariam Getahun Girma Habte Hailu Kebede Kidane Lakew Mamo Mekonnen Mengistu Negash Regassa Shiferaw Tadesse
  Taye Tekle Tesfaye Tilahun Tsegaye Wolde Woldemichael Worku Yimer Zeleke Zewde
nepali female: Anita Anjali Asmita Bimala Bindu Binita Devaki Durga Ganga Gita Indira Ishwori Januka Kabita Kalpana
  Kamala Laxmi Manju Maya Mina Muna Nirmala Pabitra Parbati Prabha Pramila Puja Radhika Rama Rekha Sabita Samjhana
  Sandhya Sangita Saraswati Shanta Shristi Sita Srijana Sunita Sushila Usha
nepali male: Ananta Anil Arjun Ashok Bhim Bikash Binod Bishnu Chandra Deepak Dhan Dipendra Ganesh Gopal Hari Hem Ishwor
  Jeevan Kamal Keshab Krishna Kumar Lok Madan Mahesh Man Milan Mohan Nabin Narayan Prakash Prem Raju Ram Ramesh Sagar
  Santosh Shiva Shyam Suman Surya Tek Umesh
nepali surnames: Acharya Adhikari Aryal Bajracharya Baral Basnet Bhandari Bhatta Bista Chaudhary Dahal Dhakal Gautam
  Ghale Ghimire Giri Gurung Karki Khadka Khatri Koirala Lama Magar Maharjan Nepali Neupane Pandey Panta Paudel Pokharel
  Pradhan Pun Rai Rana Regmi Rijal Sapkota Shah Sharma Sherpa Shrestha Subedi Tamang Thakuri Thapa Tuladhar Upreti
persian female: Afsaneh Arezoo Atefeh Azadeh Azar Bahareh Elaheh Elham Elnaz Farideh Farzaneh Fereshteh Forough Golnaz
  Hengameh Homa Jaleh Katayoun Ladan Laleh Leila Mahnaz Mahsa Mandana Marjan Maryam Mehrnoosh Mina Mojgan Nahid Narges
  Nasrin Nazanin Niloufar Parisa Parvaneh Pegah Roya Samaneh Sara Sepideh Setareh Shahrzad Shirin Shohreh Simin Soraya
  Vida Yalda Zahra Zohreh
persian male: Abbas Ali Amir Arash Ardeshir Babak Bahman Bahram Behrouz Behzad Bijan Dariush Ebrahim Ehsan Farhad
  Farshid Fereydoun Hamid Hossein Houman Iraj Jamshid Javad Kamran Kaveh Keyvan Khosrow Kourosh Mahmoud Majid Masoud
  Mehdi Mehran Mohsen Morteza Nader Navid Nima Omid Parviz Payam Peyman Pouya Ramin Reza Saeed Sasan Shahin Siamak
  Sohrab Touraj
persian surnames: Abbasi Afshar Ahmadi Akbari Alavi Amini Ansari Asadi Azizi Bagheri Bahrami Davari Ebrahimi Eskandari
  Esfahani Farahani Farrokhzad Fathi Ghaffari Ghasemi Ghorbani Hashemi Heidari Hosseini Jafari Jalali Kamali Karimi
  Kazemi Kermani Khalili Mahdavi Maleki Mirzaei Moradi Mousavi Najafi Nazari Norouzi Parsa Rahimi Rahmani Rezaei Rostami
  Sadeghi Salehi Shahbazi Sharifi Shirazi Soltani Tabrizi Taheri Tehrani Yazdani Zamani Zand
sinhala female: Amali Anoma Anusha Chandani Chathurika Damayanthi Deepika Dilani Dilhani Gayani Hasini Hiruni Imesha
  Inoka Ishara Janaki Kanchana Kumari Kushani Lakmali Malini Manel Nadeesha Nilmini Nilusha Niroshi Piyumi Rasika
  Renuka Ruwani Sachini Sandamali Sanduni Shyamali Sriyani Swarna Thilini Udeni Upeksha Yamuna
sinhala male: Ajith Amila Anura Asanka Asela Athula Buddhika Chamara Chaminda Charith Damith Dilshan Gamini Gayan
  Harsha Indika Janaka Jayantha Kapila Kasun Lahiru Lasantha Lalith Mahinda Manjula Nalin Nimal Nuwan Palitha Pradeep
  Prasanna Ranjith Roshan Ruwan Sampath Sanath Saman Sunil Thilak Thushara Upul Wasantha
sinhala surnames: Abeysekara Abeywardena Amarasinghe Ariyaratne Atapattu Bandara Dissanayake Ekanayake Fonseka
  Gamage Gunaratne Gunasekara Gunawardena Hettiarachchi Herath Jayasinghe Jayasuriya Jayawardena Karunaratne
  Kulasekara Kumarasinghe Liyanage Mendis Munasinghe Pathirana Perera Peiris Rajapaksha Ranatunga Ranaweera
  Ratnayake Samaraweera Senanayake Senaratne Silva Siriwardena Tennakoon Wanigasekara Weerasinghe Wickramasinghe
  Wijesinghe Wijesekara Wijeratne
taiwanese female: Chia-ling Chia-hui Chia-yi Chih-ling Ching-yi Chun-mei Fang-yi Hsiao-ling Hsiao-mei Hsin-yi Hsiu-ying
  Hui-chun Hui-ju Hui-min I-chun Jia-wen Jo-han Li-hua Li-mei Mei-chen Mei-hui Mei-ling Pei-chen Pei-shan Pei-yu
  Shu-chen Shu-fen Shu-hui Shu-ling Szu-ying Wan-ting Wei-ting Wen-hsin Ya-chi Ya-fang Ya-ting Yi-chen Yi-ting Yu-chen
  Yu-ling
taiwanese male: Chao-ming Cheng-han Cheng-hsun Chia-hao Chia-wei Chien-hung Chien-ming Chih-hao Chih-ming Chih-wei
  Ching-wen Chun-chieh Chun-hsien Chung-hsien Guan-lin Han-wei Hao-yu Hsin-hung Jen-hao Jian-zhi Jun-hong Kai-wen
  Kuan-yu Kuo-hua Ming-che Ming-hung Po-han Po-yu Shih-hao Tien-fu Tsung-han Tzu-hao Wei-lun Wen-hsiung Yao-ming Yen-ting
  Yi-hsuan Yu-hsiang Yung-ching Zong-xian
taiwanese surnames: Chan Chang Chao Chen Cheng Chiang Chien Chiu Chou Chu Chung Fan Fang Fu Ho Hsiao Hsieh Hsu Hsueh Hu
  Huang Hung Kao Ko Ku Kuo Lai Lee Liang Liao Lien Lin Liu Lo Lu Ma Pan Peng Shen Shih Su Sun Sung Tai Tang Teng Ting
  Tsai Tseng Tu Wang Wei Weng Wu Yang Yao Yeh Yen Yu
thai female: Achara Amporn Ananya Apinya Araya Benjamas Busaba Chanida Chutima Duangjai Jintana Kanchana Kannika
  Kanya Kesorn Ladda Lalita Malai Malee Manee Mayuree Nanthana Narumon Natthaya Nittaya Orathai Orawan Panida
  Pensri Phitsamai Piyanuch Ploy Pranee Ratana Rungnapha Sasithorn Sirikit Siriporn Somjai Suda Sukanya Sumalee Sunisa
  Supaporn Tasanee Ubon Wanida Wilaiwan Yupin
thai male: Adisak Amnuay Anan Anucha Apichat Arthit Boonmee Chai Chaiwat Chalerm Channarong Decha Ekkachai Jakkrit
  Kamol Kasem Kittisak Kriangsak Krit Manop Montri Narong Niran Nopporn Paitoon Pichai Pongsak Prasert Prasit Preecha
  Rangsan Sakda Sanan Sawat Sombat Somchai Somkiat Somsak Suchart Sunan Surachai Surasak Suthep Tawan Thanakorn
  Thanom Thawatchai Veerachai Wichai Winai Wirat Wittaya Yongyut
thai surnames: Boonmee Boonsri Bunyasarn Chaichana Chaiyasit Chansiri Charoensuk Chotikul Inthara Jaidee Kaewmanee
  Khamsing Khemthong Kittikul Klinhom Kongkaew Lertchai Maneerat Meesuk Nakarin Ngamdee Panyarachun Phromma Phumiphat
  Pongpanich Prachuap Prasertsuk Promsri Rattanakul Rungrueang Saelim Saengthong Saetang Sangsuwan Sirisuk Somboon
  Songsri Srisai Srisawat Sukjai Sukprasert Suksawat Suwannarat Thongchai Thongdee Thongsuk Traisorn Wattanakul Wongsa
  Wongsawat Yodrak
"""

LISTS = world_names.parse(_LISTS) | world_names.LISTS
"""Our own names: key -> (female given names, male given names, surnames)."""


def draw_name(rng: np.random.Generator, source: str, gender: str) -> tuple[str, str]:
    """Draws a given name and a surname in Latin letters.

    Args:
      rng: all randomness; the draw depends on its state alone.
      source: a faker locale, or a key of :data:`LISTS`.
      gender: ``female`` or ``male``.
    """
    if source in world_names.LISTS or source not in LISTS:
        given, surname = (part.translate(_SPELLING) for part in world_names.draw_name(rng, source, gender))
        language = _SCRIPTS.get(source)
        return (romanised(given, language), romanised(surname, language)) if language else (given, surname)
    women, men, surnames = LISTS[source]
    given_names = women if gender == "female" else men
    given, surname = given_names[rng.integers(len(given_names))], surnames[rng.integers(len(surnames))]
    return given, f"{surname}a" if source == "bulgarian" and gender == "female" else surname
